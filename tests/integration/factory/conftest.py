"""The real server of the packaging room's tests, on a folder of the test's own."""

from tests.support.fixtures import folder as folder
from tests.support.fixtures import template as template
