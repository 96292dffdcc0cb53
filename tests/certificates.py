"""Certificates: of CAs made for a test, valid or not."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


class Authority:
    """A CA.

    Attributes:
        pem: Its own certificate.
    """

    def __init__(self, name="tests"):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key, -1, 30)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)

    def issue(self, name, *, days=(-1, 1), alternative=("localhost",)):
        """A certificate for this machine, and its key; valid between so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.DNSName, alternative), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = _builder(_named(name), self._name, key, *days)
        signed = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return signed.sign(self._key, hashes.SHA256()).public_bytes(PEM), private


def write_pair(folder, pair, name="server"):
    """Writes a certificate and its key, each at once as tools for certificates do; returns their paths."""
    paths = Path(folder) / f"{name}.pem", Path(folder) / f"{name}.key"
    for path, data in zip(paths, pair, strict=True):
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        beside.replace(path)
    return paths


def _named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject, issuer, key, first_day, last_day):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now + first_day * DAY).not_valid_after(now + last_day * DAY)
