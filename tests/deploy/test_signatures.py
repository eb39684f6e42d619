"""Tests signatures: who made an artifact is checked before anything in it is read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import fxcache
from fxcache.cli import main
from fxcache.deploy import load as loading
from fxcache.deploy.files import MANIFEST
from fxcache.deploy.signatures import SIGNATURE
from tests.deploy.natives import edit_native, load_native
from tests.deploy.test_round_trip import denoised
from tests.plain import dit

PEM, PUBLIC = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


class Keys:
    """A new pair of keys in two files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
        key = Ed25519PrivateKey.generate()
        plain = PrivateFormat.PKCS8, NoEncryption()
        self.private.write_bytes(key.private_bytes(PEM, *plain))
        self.public.write_bytes(key.public_key().public_bytes(PEM, PUBLIC))


@pytest.fixture
def author(tmp_path: Path) -> Keys:
    return Keys(tmp_path, "author")


def test_a_signed_artifact_loads_with_the_authors_key(folder, author):
    signature = fxcache.sign(folder, author.private)
    assert signature.stat().st_size == 64
    signed = denoised(fxcache.load(folder, signed_by=author.public))
    assert all(map(torch.equal, signed, denoised(fxcache.load(folder))))


def test_without_a_signature_nothing_is_loaded(folder, author):
    with pytest.raises(fxcache.ArtifactError, match="not signed"):
        fxcache.load(folder, signed_by=author.public)


def test_the_key_of_another_author_is_refused(folder, author, tmp_path):
    fxcache.sign(folder, Keys(tmp_path, "other").private)
    with pytest.raises(fxcache.ArtifactError, match="was not signed with this key"):
        fxcache.load(folder, signed_by=author.public)


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_a_changed_byte_is_noticed_before_anything_is_parsed(folder, author, name, monkeypatch):
    fxcache.sign(folder, author.private)
    content = bytearray((folder / name).read_bytes())
    content[20] ^= 1
    (folder / name).write_bytes(content)
    monkeypatch.setattr(loading, "parsed", lambda *_: pytest.fail("the manifest was parsed"))
    with pytest.raises(fxcache.ArtifactError, match="was not signed with this key"):
        fxcache.load(folder, signed_by=author.public)


def test_a_signature_covers_the_other_files_by_their_hashes(folder, author):
    fxcache.sign(folder, author.private)
    file = next(folder.glob("weights-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(fxcache.ArtifactError, match="another content"):
        fxcache.load(folder, signed_by=author.public)


def test_a_signature_that_is_a_link_or_too_long_is_refused(folder, author, tmp_path):
    signature = fxcache.sign(folder, author.private)
    moved = signature.rename(tmp_path / "elsewhere")
    signature.symlink_to(moved)
    with pytest.raises(fxcache.ArtifactError, match="cannot be read"):
        fxcache.load(folder, signed_by=author.public)
    signature.unlink()
    signature.write_bytes(moved.read_bytes() * 2)
    with pytest.raises(fxcache.ArtifactError, match="at most 64 bytes"):
        fxcache.load(folder, signed_by=author.public)


def test_exporting_again_removes_the_signature(author, tmp_path):
    model = tiny_artifact()
    folder = fxcache.export(model, tmp_path / "artifact")
    signature = fxcache.sign(folder, author.private)
    fxcache.export(model, folder)
    assert not signature.exists()


def test_native_code_runs_only_signed_unless_the_caller_allows_it(native_folder, author, tmp_path):
    with pytest.raises(fxcache.ConfigError, match="nothing says who that is"):
        fxcache.load(native_folder, native=True)
    plain = fxcache.export(tiny_artifact(), tmp_path / "plain")
    fxcache.sign(plain, author.private)
    shutil.copy(plain / SIGNATURE, native_folder / "native" / SIGNATURE)
    with pytest.raises(fxcache.ArtifactError, match="not signed"):
        fxcache.load(native_folder, native=True, signed_by=author.public)
    fxcache.sign(native_folder, author.private)
    loaded = fxcache.load(native_folder, native=True, signed_by=author.public)
    expected = denoised(load_native(native_folder))
    assert all(map(torch.equal, denoised(loaded), expected))


def test_native_code_that_was_changed_after_signing_is_not_run(native_folder, author):
    fxcache.sign(native_folder, author.private)
    edit_native(native_folder, lambda data: data.update(artifact=data["artifact"]))
    with pytest.raises(fxcache.ArtifactError, match="was not signed with this key"):
        fxcache.load(native_folder, native=True, signed_by=author.public)
    fxcache.load(native_folder, signed_by=author.public)  # the artifact itself is as it was


def tiny_artifact() -> torch.nn.Module:
    model = fxcache.optimize(dit(2))
    denoised(model)
    return model


def test_other_keys_are_refused_by_name(folder, author, tmp_path):
    curve = ec.generate_private_key(ec.SECP256R1())
    other, text, missing = tmp_path / "ec.pem", tmp_path / "text.pem", tmp_path / "missing.pem"
    other.write_bytes(curve.public_key().public_bytes(PEM, PUBLIC))
    text.write_text("no key")
    fxcache.sign(folder, author.private)
    for path in (other, text, author.private):
        with pytest.raises(fxcache.ConfigError, match="no Ed25519 public key"):
            fxcache.load(folder, signed_by=path)
    with pytest.raises(fxcache.ConfigError, match="cannot be read"):
        fxcache.load(folder, signed_by=missing)
    for path in (text, author.public):
        with pytest.raises(fxcache.ConfigError, match="no Ed25519 private key"):
            fxcache.sign(folder, path)


def test_a_private_key_with_a_password_is_refused(folder, author, tmp_path):
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    locked = tmp_path / "locked.pem"
    form = PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    locked.write_bytes(Ed25519PrivateKey.generate().private_bytes(PEM, *form))
    with pytest.raises(fxcache.ConfigError, match="without a password"):
        fxcache.sign(folder, locked)


def test_the_command_signs(folder, author, capsys):
    assert main(["sign", str(folder), "--key", str(author.private)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {folder / SIGNATURE}"]
    fxcache.load(folder, signed_by=author.public)


def test_the_command_names_the_signature_of_native_code(native_folder, author, capsys):
    assert main(["sign", str(native_folder), "--key", str(author.private), "--json"]) == 0
    files = [str(native_folder / part / SIGNATURE) for part in ("", "native")]
    assert json.loads(capsys.readouterr().out)["files"] == files


def test_without_the_package_the_error_says_what_to_install(folder, author):
    code = f"""
import sys
sys.modules["cryptography"] = None
import fxcache
try:
    fxcache.load({str(folder)!r}, signed_by={str(author.public)!r})
except fxcache.ModelFileError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'fxcache[sign]'" in done.stdout


def test_a_signature_is_not_written_through_a_link(folder, author, tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (folder / SIGNATURE).symlink_to(target)
    with pytest.raises(fxcache.ArtifactError, match="through a link"):
        fxcache.sign(folder, author.private)
    assert target.read_text() == "mine"
