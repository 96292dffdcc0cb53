"""TLS of the HTTP port: a new connection is shown the certificate of the day, and no other is dropped for it."""

from __future__ import annotations

import ssl
from typing import Any

from xai_sidecar.serving.tls_files import TlsFiles

HANDSHAKE_SECONDS = 10.0
"""How long a handshake may take; by itself asyncio waits for a minute."""


class FreshContext(ssl.SSLContext):
    """A context of which every connection has what the files say when it is made.

    Loading a certificate into a context that is in use would do, but a CA can only be added to one, never taken away.

    Args:
        files: The files of TLS.
    """

    files: TlsFiles

    def __new__(cls, files: TlsFiles) -> FreshContext:
        """Makes the context; what it is of its own is never used."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context.files = files
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`, by which asyncio makes each connection's object."""
        return self.files.current().context.wrap_bio(*arguments, **options)
