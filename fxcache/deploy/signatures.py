"""Detached Ed25519 signatures of an artifact's manifest, which holds the hash of every file."""

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fxcache.deploy.fields import damaged
from fxcache.deploy.files import MANIFEST, MAX_MANIFEST, content_of, unwritable
from fxcache.errors import ArtifactError, ConfigError
from fxcache.integrations.diffusers import installed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = "manifest.sig"
NATIVE = "native"  # the folder of native code in an artifact
SIZE = 64  # bytes of an Ed25519 signature (RFC 8032, section 5.1.6)
MAX_KEY = 65_536


def sign(folder: str | PathLike[str], private_key: str | PathLike[str]) -> Path:
    """Sign an artifact: write ``manifest.sig`` beside its manifest, and beside that of native code.

    A signature covers the manifest, which holds the size and the hash of every other file. So it
    covers them all. Exporting or compiling again removes it.

    Args:
        folder: The folder that ``fxcache.export`` wrote.
        private_key: The path of an Ed25519 private key in PEM, without a password, such as
            ``openssl genpkey -algorithm ed25519 -out private.pem`` makes.

    Returns:
        The path of the artifact's signature: 64 bytes, as RFC 8032 defines them.

    Raises:
        ArtifactError: The folder holds no artifact, or a link in place of a signature.
        ConfigError: The file holds no Ed25519 key.
        ModelFileError: The signature cannot be written, or the package ``cryptography`` is missing.
    """
    source, key = Path(folder), private_key_in(Path(private_key))
    for place in (source, *([source / NATIVE] if (source / NATIVE).is_dir() else [])):
        signature = key.sign(content_of(place, MANIFEST, MAX_MANIFEST))
        if place.is_symlink() or (place / SIGNATURE).is_symlink():
            raise damaged("a signature is not written through a link", str(place))
        try:
            (place / SIGNATURE).write_bytes(signature)
        except OSError as error:
            raise unwritable(place, error) from error
    return source / SIGNATURE


def require_signature(folder: Path, manifest: bytes, public_key: Path) -> None:
    """Check that ``public_key`` belongs to the signature of ``manifest`` in ``folder``.

    Raises:
        ArtifactError: The signature is missing or does not match.
        ConfigError: The file holds no Ed25519 key.
        ModelFileError: The package ``cryptography`` is missing.
    """
    key = public_key_in(public_key)
    from cryptography.exceptions import InvalidSignature

    if not os.path.lexists(folder / SIGNATURE):
        raise ArtifactError(
            "the artifact is not signed",
            where=str(folder / SIGNATURE),
            remedy="ask its author to sign it: fxcache sign FOLDER --key private.pem",
        )
    signature = content_of(folder, SIGNATURE, SIZE)
    try:
        key.verify(signature, manifest)
    except InvalidSignature as error:
        raise ArtifactError(
            "the artifact was not signed with this key, or was changed since",
            where=str(folder / SIGNATURE),
            remedy="get the artifact again from its author, or pass the author's public key",
        ) from error


def private_key_in(path: Path) -> "Ed25519PrivateKey":
    """Return the Ed25519 private key in a PEM file."""
    installed("cryptography", "sign")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = key_bytes(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise no_key(path, "private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise no_key(path, "private")
    return key


def public_key_in(path: Path) -> "Ed25519PublicKey":
    """Return the Ed25519 public key in a PEM file."""
    installed("cryptography", "sign")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = key_bytes(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise no_key(path, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise no_key(path, "public")
    return key


def key_bytes(path: Path) -> bytes:
    """Return the content of a key file."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY)
    except OSError as error:
        raise ConfigError(
            f"the key cannot be read: {error.strerror}",
            where=str(path),
            remedy="pass the path of a PEM file",
        ) from error


MAKE_PRIVATE = "openssl genpkey -algorithm ed25519 -out private.pem"
MAKE_PUBLIC = "openssl pkey -in private.pem -pubout -out public.pem"


def no_key(path: Path, kind: str) -> ConfigError:
    """Return the error for a file that holds no Ed25519 key of this kind."""
    return ConfigError(
        f"the file holds no Ed25519 {kind} key in PEM without a password",
        where=str(path),
        remedy=f"make one: {MAKE_PRIVATE}"
        if kind == "private"
        else f"make it from the private key: {MAKE_PUBLIC}",
    )
