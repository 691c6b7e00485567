"""What tests of the whole server share: servers in and out of process, raw agents, administrators."""
