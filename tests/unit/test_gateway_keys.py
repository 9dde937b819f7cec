"""API keys: how they look, and the commands that make and revoke them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from corolla.cli.main import app
from corolla.gateway.keys import key_hash, new_key
from corolla_core.protocol.errors import InvalidInput, KeyRefused
from corolla_core.protocol.units import UnixTime

NOW = UnixTime(1_800_000_000)


@pytest.fixture
def keys(tmp_path: Path) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(
            app, ["gateway-keys", *arguments], env={"COROLLA_HOME": str(tmp_path), "NO_COLOR": "1"}
        )

    return run


def test_a_key_is_256_bits_no_two_are_alike_and_its_secret_is_not_in_its_repr() -> None:
    made = [new_key("x", now=NOW) for _ in range(50)]
    assert len({each.secret for each in made}) == 50
    assert all(each.secret.startswith("sk-corolla-") and len(each.secret) == 11 + 43 for each in made)
    assert all(each.secret not in repr(each) for each in made)
    assert all(key_hash(each.secret) == each.key.key_hash for each in made)


@pytest.mark.parametrize("text", ["", "sk-corolla-", "sk-corolla-" + "a" * 42, "sk-other-" + "a" * 43, "é" * 54])
def test_text_that_cannot_be_a_key_is_refused_before_the_books_are_asked(text: str) -> None:
    with pytest.raises(KeyRefused):
        key_hash(text)


@pytest.mark.parametrize("label", ["", "  ", "a\nb", "x" * 81])
def test_a_label_is_a_short_line_of_text(label: str) -> None:
    with pytest.raises(InvalidInput):
        new_key(label, now=NOW)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(keys: Any, tmp_path: Path) -> None:
    made = keys("add", "alice", "--budget", "2.5", "--daily", "--days", "30", "--json")
    assert made.exit_code == 0, made.output
    secret = json.loads(made.stdout)["key"]
    (listed,) = json.loads(keys("list", "--json").stdout)
    assert listed["label"] == "alice"
    assert (listed["state"], listed["budget"], listed["per"], listed["spent"]) == ("active", "2.5", "day", "0")
    assert secret.startswith(listed["key"].rstrip("…"))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "gateway").iterdir())
    assert secret.encode() not in kept
    assert bytes(key_hash(secret)) in kept


def test_a_revoked_key_is_listed_as_such_and_its_label_stays_taken(keys: Any) -> None:
    keys("add", "bob", "--private")
    assert keys("revoke", "bob").exit_code == 0
    (listed,) = json.loads(keys("list", "--json").stdout)
    assert (listed["state"], listed["private"]) == ("revoked", True)
    again = keys("add", "bob")
    assert again.exit_code == 1
    assert "already" in again.stderr


@pytest.mark.parametrize("wrong", [["add", "x", "--budget", "-1"], ["add", "x", "--daily"], ["revoke", "nobody"]])
def test_what_cannot_be_done_is_one_line_on_stderr(keys: Any, wrong: list[str]) -> None:
    refused = keys(*wrong)
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
