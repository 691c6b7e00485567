"""tar: ustar and pax (POSIX.1-2017, ``pax``) and GNU's long names. One file has one meaning here.

Where two readers in use understand a file differently, it is refused: sizes that disagree, global headers
that name files, sparse files, numbers with something behind them.
"""

from controlplane.packaging.archives.tar.reader import tar_members as tar_members
