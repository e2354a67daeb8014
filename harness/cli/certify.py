"""The command that writes a certificate, and checks one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import local_folder
from harness.cli.usage import refuse
from harness.console import err, format_count, one_line, out

if TYPE_CHECKING:
    from harness.certify.schema import Certificate

MOST_PROBLEMS = 20  # printed; the others are counted


def certify(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            parser=local_folder,
            help="Folders of runs, of `tinydrop audit` and of `tinydrop vet`; with --check, of a certificate.",
        ),
    ],
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for the certificate.")] = Path("certificate"),
    key: Annotated[
        Path | None, typer.Option("--key", help="Your private EC key (PEM), to sign with.", show_default="no signature")
    ] = None,
    date: Annotated[
        str, typer.Option("--date", metavar="YYYY-MM-DD", help="A date to write in.", show_default="none")
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Check a certificate instead of writing one.")] = False,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="With --check: the signer's public key (PEM).")
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="With --check: leave the signature unchecked.")] = False,
) -> None:
    """Certify what was tested of data, model and training, and what was not; or check such a certificate.

    A certificate is a folder: certificate.json, a page, a section for a model card, a bill of materials (CycloneDX),
    the data as Croissant, and the records that all of it follows from. It says which levels are reached: recorded,
    vetted (data), audited and calibrated (model), measured (recipe). None of them proves that there is no poison.

    --check makes every number again from the records, and names what was changed. Without --public-key it cannot say
    who wrote the certificate, and has to be told so by --unsigned. No network is used.

    A key of your own:  openssl ecparam -name prime256v1 -genkey -noout -out key.pem

    Its public part:  openssl ec -in key.pem -pubout -out public.pem

    Example:  tinydrop certify runs/quickstart audit vet -o certificate --key key.pem

    Example:  tinydrop certify certificate --check --public-key public.pem

    Exit codes: 0 written, or checked and found in order; 1 refused: something was changed or does not follow from the
    records; 2 unusable input.
    """
    from harness.certify import documents, sign, write
    from harness.run.provenance import code_version

    documents.require_extra()
    if check:
        _check(inputs, public_key, unsigned, [name for name, given in {"--key": key, "--date": date}.items() if given])
        return
    if public_key or unsigned:
        refuse(f"{'--public-key' if public_key else '--unsigned'}: is for --check")
    if date:
        _require_date(date)
    signer = sign.read_private(key) if key else None
    found = write.certify(inputs, to, code_version(), date, signer)
    _say(found)
    if signer is None:
        err.print("not signed: anybody could have written it; --key signs it, and --help says how to make a key",
                  highlight=False, soft_wrap=True)  # fmt: skip
    out.print(f"page: {to / documents.PAGE}", highlight=False, soft_wrap=True)


def _check(inputs: list[Path], public_key: Path | None, unsigned: bool, others: list[str]) -> None:
    from harness.certify import sign
    from harness.certify.check import check
    from harness.run.provenance import code_version

    if others:
        refuse(f"{others[0]}: is for writing a certificate, --check reads one")
    if len(inputs) != 1:
        refuse(f"INPUT: {len(inputs)} folders; --check takes one certificate")
    if (public_key is None) != unsigned:
        refuse("--check: name the signer's --public-key, or --unsigned to leave the signature unchecked; one of both")
    found = check(inputs[0], sign.read_public(public_key) if public_key else None, code=code_version())
    for problem in found.problems[:MOST_PROBLEMS]:
        err.print(problem, highlight=False, soft_wrap=True, markup=False)
    if len(found.problems) > MOST_PROBLEMS:
        err.print(f"... and {len(found.problems) - MOST_PROBLEMS} more", highlight=False)
    for note in found.notes:
        err.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
    if found.problems or found.certificate is None:
        out.print(f"refused: {format_count(len(found.problems), 'problem')}", highlight=False)
        raise typer.Exit(1)
    _say(found.certificate)
    signed = "signed by this key" if public_key else "the signature was not checked, so anybody can have written it"
    out.print(f"in order: {len(found.certificate.files)} files, all follows from the records; {signed}",
              highlight=False, soft_wrap=True)  # fmt: skip


def _require_date(date: str) -> None:
    from datetime import date as calendar

    try:
        if calendar.fromisoformat(date).isoformat() == date:
            return
    except ValueError:
        pass
    refuse(f"--date {date!r}: is no date; write it as 2026-01-31")


def _say(found: Certificate) -> None:
    """Every level with why not, and what was found."""
    from harness.certify.documents import CAVEAT, headline

    for level in found.levels:
        why = "yes" if level.granted else one_line(f"no: {'; '.join(level.unmet)}", None)
        out.print(f"level {level.level} {level.name}: {why}", highlight=False, soft_wrap=True, markup=False)
    for text in (headline(found), CAVEAT):
        out.print(text, highlight=False, soft_wrap=True, markup=False)
