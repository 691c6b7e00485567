"""Reading every page of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from controlplane.cli.output import Column, Output

LARGEST_PAGE: Final = 1000
"""The most that a server gives at once (ListAgentsRequest.page_size)."""

ResponseT = TypeVar("ResponseT", bound=Any)


def read_all(
    call: Callable[[Any], ResponseT],
    request: Any,
    field: str,
    limit: int,
    output: Output,
    largest_page: int = LARGEST_PAGE,
) -> ResponseT:
    """Return the first page with the items of all the others in it; with a ``limit``, at most so many.

    ``next_page_token`` stays where there is more; ``total_size`` is that of the whole list.
    """
    request.page_size = _size(limit, 0, largest_page)
    whole = call(request)
    found = getattr(whole, field)
    if not _goes_on(whole, found, limit):
        return whole
    with output.progress(f"reading {field}") as progress:
        while _goes_on(whole, found, limit):
            total = getattr(whole, "total_size", 0)
            progress(f"{len(found):,} {f'of {total:,} ' if total else ''}{field} read")
            request.page_token = whole.next_page_token
            request.page_size = _size(limit, len(found), largest_page)
            page = call(request)
            found.extend(getattr(page, field))
            whole.next_page_token = page.next_page_token
    return whole


def print_all(
    output: Output,
    call: Callable[[Any], Any],
    request: Any,
    field: str,
    limit: int,
    columns: Sequence[Column[Any]],
    empty: str,
) -> None:
    """Read a list as ``read_all`` does and print it; where it has nothing, a person is told ``empty``."""
    response = read_all(call, request, field, limit, output)
    output.items(response, field, columns, empty)
    summarize(output, response, field)


def summarize(output: Output, response: Any, field: str) -> None:
    """Tell a person at a terminal how much of the list was printed, and anyone that it was not all."""
    shown = len(getattr(response, field))
    total = max(getattr(response, "total_size", 0), shown)
    if response.next_page_token and total == shown:
        output.more(f"showing {shown:,} {field}; there are more: --limit 0 is all of them")
    else:
        output.summary(f"showing {shown:,} of {total:,}")


def _goes_on(whole: Any, found: Sequence[Any], limit: int) -> bool:
    return bool(whole.next_page_token) and (not limit or len(found) < limit)


def _size(limit: int, read: int, largest: int) -> int:
    return min(largest, limit - read) if limit else largest
