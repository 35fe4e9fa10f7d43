"""Slips in how files, series and fetched data are read."""

from __future__ import annotations

from tests.planted.bug import Bug

BUGS = (
    Bug(
        "an_archive_of_another_hash_is_unpacked",
        "python/fusedrnn/data/sources.py",
        "if not pinned or _has(content, pinned) else {}",
        "if pinned else {}",
        "tests/test_fetching.py::test_what_is_not_pinned_is_not_unpacked",
    ),
    Bug(
        "a_download_of_another_hash_is_kept",
        "python/fusedrnn/data/index.py",
        "if size <= ARCHIVE_LIMIT and digest.hexdigest() == pinned:",
        "if size <= ARCHIVE_LIMIT:",
        "tests/test_fetching.py::test_a_file_is_taken_out_of_its_archive_once",
    ),
    Bug(
        "two_processes_fetch_at_once",
        "python/fusedrnn/data/sources.py",
        "        if (kept := _kept(folder, pins)) is not None:  # another process was quicker\n",
        "        if (kept := None) is not None:\n",
        "tests/test_fetching.py::test_many_fetch_at_once",
    ),
    Bug(
        "what_a_killed_process_left_stays",
        "python/fusedrnn/data/sources.py",
        "                shutil.rmtree(left, ignore_errors=True)\n",
        "                pass\n",
        "tests/test_fetching.py::test_what_a_killed_process_left_is_swept",
    ),
    Bug(
        "a_members_size_has_no_bound",
        "python/fusedrnn/data/reading.py",
        "    content = read_some(stream, limit + 1)\n",
        "    content = stream.read(-1)\n",
        "tests/test_fetching.py::test_members_have_bounds",
    ),
    Bug(
        "a_pipe_is_read_as_a_file",
        "python/fusedrnn/data/reading.py",
        "            if not stat.S_ISREG(found.st_mode):",
        "            if stat.S_ISDIR(found.st_mode):",
        "tests/test_fetching.py::test_files_that_are_not_plain_are_not_waited_for",
    ),
    Bug(
        "a_comma_is_always_between_cells",
        "python/fusedrnn/data/tables.py",
        "            if all(is_number(c) or not any(",
        "            if all(not any(",
        "tests/test_series.py::test_semicolons_part_what_commas_only_could",
    ),
    Bug(
        "an_ambiguous_comma_is_decimal",
        "python/fusedrnn/data/series.py",
        '    if "either" in shown:\n',
        '    if "either" in shown and not shown:\n',
        "tests/test_series.py::test_bad_files",
    ),
    Bug(
        "lines_stay_in_their_order",
        "python/fusedrnn/data/series.py",
        "        values = values[order]\n",
        "",
        "tests/test_series.py::test_files_are_read_as_they_are_meant",
    ),
    Bug(
        "holes_between_times_are_closed",
        "python/fusedrnn/data/spacing.py",
        "    if len(gone):\n",
        "    if len(gone) > 10:\n",
        "tests/test_given.py::test_a_series_is_not_taken_as_it_lies tests/test_series.py::test_bad_files",
    ),
    Bug(
        "columns_in_another_order_are_taken",
        "python/fusedrnn/estimators/given.py",
        "list(got) != list(names)",
        "set(got) != set(names)",
        "tests/test_given.py::test_score_wants_the_same_columns_and_what_follows",
    ),
    Bug(
        "masks_are_dropped",
        "python/fusedrnn/estimators/given.py",
        "np.ma.is_masked(row)) or row is",
        "False) or row is",
        "tests/test_given.py::test_a_series_is_not_taken_as_it_lies",
    ),
)
