"""The entry point: `python -m gevproxy` and the command `gevproxy`.

Patching is the first thing that happens, before anything imports socket or threading by name.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - after the patch

from gevproxy.cli import main  # noqa: E402 - after the patch

if __name__ == "__main__":
    sys.exit(main())
