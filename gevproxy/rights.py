"""Another user's rights, for `gevproxy check --as USER`: what root can read the daemon may not.

Gives rights up and can never take them back. Knows nothing of what is done with them.
"""

import os
import pwd

from gevproxy.errors import GevproxyError


class RightsError(GevproxyError):
    """The rights of a user cannot be taken. The text says why, and what to do."""


def become(user: str) -> None:
    """Go on as a user, with the user's groups and without any other right. RightsError if not."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError) as error:  # ValueError: a NUL in the name
        raise RightsError(f"there is no user {user!r} on this host") from error
    if os.geteuid() == entry.pw_uid == os.getuid():
        return
    if os.geteuid() != 0:
        raise RightsError(f"only root can check with the rights of {user}: use sudo")
    try:
        # In this order: each step needs the rights that the next one gives up.
        os.initgroups(user, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except OSError as error:
        raise RightsError(f"cannot become {user}: {error.strerror}") from error
