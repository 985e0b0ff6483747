"""Shares of many files, so that several machines process them together."""

import argparse
import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count`, counted from 1. Every name is in exactly one of the `count` shares."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, name: PurePath) -> bool:
        """Whether a file is in this share; that depends on nothing but its name.

        Args:
            name: relative to the folder that all machines process, so that they may find it at different places.
        """
        text = unicodedata.normalize("NFC", name.as_posix())  # macOS may give decomposed names
        digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """An argparse type: `2/8` is the second of eight shares."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text} is not K/N with K from 1 to N, such as 2/8")
    return Shard(int(number), int(count))
