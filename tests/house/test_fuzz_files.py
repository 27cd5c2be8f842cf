"""Some of the cases of `make fuzz`; `python tests/support/fuzz_files.py --case N` shows one again."""

from fuzz_files import fuzzed


def test_damaged_and_hostile_files_end_in_plain_words_or_a_right_value() -> None:
    wrong = fuzzed(list(range(200)))
    assert not wrong, "\n".join(
        f"case {r.case}, {r.reader}, {r.done}: {r.fault}\n  {r.outcome}" for r in wrong
    )
