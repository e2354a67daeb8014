"""The signature by model-signing: an in-toto statement with the hash of every file, in a DSSE envelope."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from harness.certify.findings import parse_json
from harness.console import one_line, quote
from harness.errors import BadEvidence

SIGNATURE = "signature.json"
MAKE_KEY = (
    "openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out public.pem"
)


def read_private(key: Path) -> Any:
    """A signer. Raises BadEvidence for a key that cannot sign, and says how to make one."""
    from model_signing import signing

    if not key.is_file():
        raise BadEvidence(f"--key {quote(str(key))}: no such file; make one with `{MAKE_KEY}`")
    try:
        return signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:  # cryptography has many classes of them
        raise BadEvidence(
            f"--key {quote(str(key))}: {one_line(error, 100)}; it takes an unencrypted EC key: `{MAKE_KEY}`"
        ) from None


def read_public(key: Path) -> Any:
    """A verifier. Raises BadEvidence for what is no public EC key."""
    from model_signing import verifying

    if not key.is_file():
        raise BadEvidence(f"--public-key {quote(str(key))}: no such file")
    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # as above
        raise BadEvidence(f"--public-key {quote(str(key))}: {one_line(error, 100)}; it takes a public EC key") from None


def sign(signer: Any, folder: Path) -> None:
    """Write folder/signature.json for all that is in the folder. ECDSA draws: no two signatures are equal."""
    signer.set_hashing_config(_hashing()).sign(folder, folder / SIGNATURE)


def find_signature_problem(verifier: Any, folder: Path) -> str:
    """Why the signature in a folder is none of this key for these files; "" where it is."""
    from sigstore_models.bundle.v1 import Bundle

    path = folder / SIGNATURE
    try:
        parse_json(path.read_bytes())
        if Bundle.from_json(path.read_bytes()).to_json().encode() != path.read_bytes():
            return "is not as it was written"  # a byte that means nothing was changed
    except Exception as error:  # whatever a parser says of random bytes
        return f"is no signature ({one_line(type(error).__name__)})"
    try:
        verifier.set_hashing_config(_hashing()).verify(folder, path)
    except Exception as error:  # also cryptography's InvalidSignature, which has no text
        return one_line(error, 200) or "is not by this key"
    return ""


def signed_files(signature: bytes) -> dict[str, str]:
    """SHA-256 of every file that a signature lists. Only a signature that has been verified may be believed."""
    try:
        envelope = parse_json(signature)["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        return {str(file["name"]): str(file["digest"]) for file in statement["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _hashing() -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
