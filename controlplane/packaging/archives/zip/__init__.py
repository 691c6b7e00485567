"""zip: APPNOTE 6.3.10, sections 4.3 to 4.5, as far as wheels and jars go, and read in one way only.

The central directory, the local headers and the bytes between must tell one story: entries lie end to end
from the first byte to the directory, and the directory's end is the end of the file.
"""

from controlplane.packaging.archives.zip.directory import Entry as Entry
from controlplane.packaging.archives.zip.directory import directory as directory
from controlplane.packaging.archives.zip.reader import zip_members as zip_members
