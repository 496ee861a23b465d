"""The configuration: JSON files in, one frozen Config out, or all problems at once.

`load` is the way in. Nothing in this package changes anything outside or opens a connection.
"""

from gevproxy.config.address import parse_address
from gevproxy.config.keys import (
    CREDENTIALS_FOLDER,
    ELSEWHERE,
    credentials,
    key_in,
    key_warnings,
    resolve_key,
)
from gevproxy.config.load import DEFAULT_PATHS, load
from gevproxy.config.model import (
    Config,
    Expect,
    ForwardConfig,
    MetricsConfig,
    OnDisconnect,
    OnLate,
    Payload,
    QueueAddress,
    Rewrite,
    SetField,
    Substitute,
    TlsConfig,
    UniquePolicy,
)
from gevproxy.config.schema import schema_text

__all__ = [
    "CREDENTIALS_FOLDER",
    "DEFAULT_PATHS",
    "ELSEWHERE",
    "Config",
    "Expect",
    "ForwardConfig",
    "MetricsConfig",
    "OnDisconnect",
    "OnLate",
    "Payload",
    "QueueAddress",
    "Rewrite",
    "SetField",
    "Substitute",
    "TlsConfig",
    "UniquePolicy",
    "credentials",
    "key_in",
    "key_warnings",
    "load",
    "parse_address",
    "resolve_key",
    "schema_text",
]
