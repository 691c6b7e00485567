"""PostgreSQL: for sites with several processes."""
