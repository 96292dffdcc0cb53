"""TLS of the gRPC port: a new connection is shown the certificate of the day, and no other is dropped for it."""

from __future__ import annotations

import grpc

from xai_sidecar.serving.tls_files import TlsFiles, TlsIdentity


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files."""
    shown = files.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None for no change."""
        nonlocal shown
        current = files.current()
        if current is shown:
            return None
        shown = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        changed,  # type: ignore[arg-type]  # None is what gRPC documents
        require_client_authentication=files.asks_callers,
    )


def _configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key, identity.certificate)], root_certificates=identity.client_ca
    )
