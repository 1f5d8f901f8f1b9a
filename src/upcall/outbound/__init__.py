"""The one guarded POST to somebody else's URL: what forwards and the sandbox's deliveries send with.

What may be reached is said at start-up. A host is resolved once for each connection, every address of the answer is
checked, and the connection goes to the addresses that were checked: a name that resolves to something else later, or
for somebody else, changes nothing. The host name stays what ``Host``, SNI and the certificate are about. Redirects are
answers, not orders; proxies of the environment are ignored, because a proxy resolves for itself.
"""

from upcall.outbound.poster import GuardedPoster
from upcall.outbound.response import Answer
from upcall.outbound.targets import OwnTarget, Targets, is_private

__all__ = ["Answer", "GuardedPoster", "OwnTarget", "Targets", "is_private"]
