#!/usr/bin/env python3
"""A second opinion on tests/data/phone_numbers.csv: what Google's own library makes of each row.

    pip install phonenumbers && python3 tests/phone_numbers.py

The table says which number a text means in a region, or `invalid` where nobody can tell or nobody can be texted. The unit
test `every_row_of_the_table_is_read_as_it_says` in src/domain/phone.rs holds our reader to it; this script holds the
table to `phonenumbers`. It shares no code with the reader. Where the two differ on purpose, the column
`why_google_differs` says why. Exit code 1: a row differs without a reason, or has a reason and does not differ.

The first rows, eight ways for each of 48 countries, were made from phonenumbers' examples of mobile numbers: the person is
known before the text is. The others were written by hand.
"""

import csv
import re
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import phonenumbers

TABLE = Path(__file__).parent / "data" / "phone_numbers.csv"
QUOTES = "\"'`\u00b4\u2032\u2033"


def unescape(text):
    """`\\u{200B}` stands for a character that an editor would not show."""
    return re.sub(r"\\u\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), text)


def clean(text):
    """Takes away what is not seen, and quotes. Everything else is Google's to judge."""
    seen = [c for c in text if unicodedata.category(c) != "Cf"]
    plain = unicodedata.normalize("NFKC", "".join(seen))
    plain = "".join(c for c in plain if c not in QUOTES and unicodedata.category(c) not in ("Pi", "Pf"))
    plain = plain.replace("\u201e", "").strip().strip("<>=")
    if plain.lower().startswith("tel:"):
        plain = unquote(plain)
    return plain


def second_opinion(written, region):
    known = region if region in phonenumbers.SUPPORTED_REGIONS else None
    try:
        number = phonenumbers.parse(clean(unescape(written)), known)
    except phonenumbers.NumberParseException:
        return "invalid"
    # Not what is possible within a town only, like `555-0101`.
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return "invalid"
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def main():
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    faults = 0
    differing = 0
    countries = set()
    for line, row in enumerate(rows, start=2):
        expected, why = row["expected"], row["why_google_differs"]
        if expected != "invalid":
            number = phonenumbers.parse(expected)
            countries.add(phonenumbers.region_code_for_country_code(number.country_code))
        google = second_opinion(row["written"], row["region"])
        if google == expected and not why:
            continue
        differing += 1
        mark = "differs"
        if google == expected:
            mark, faults = "has a reason but does not differ", faults + 1
        elif not why:
            mark, faults = "DIFFERS WITHOUT A REASON", faults + 1
        print(f"line {line}: {row['region']} {row['written']!r}: {expected}, Google {google}: {mark}. {why}")
    ways = {row["way"] for row in rows}
    print(
        f"{len(rows)} numbers of {len(countries)} countries in {len(ways)} ways, phonenumbers {phonenumbers.__version__}: "
        f"{differing} differ, {faults} without a good reason"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
