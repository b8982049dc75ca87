"""Where webhooks may go, and what they are signed with. Both follow Standard Webhooks (standardwebhooks.com)."""

from emx_shared.webhooks.secrets import TooManySecrets, WebhookSecrets
from emx_shared.webhooks.targets import ForbiddenTarget, WebhookTargets

__all__ = ["ForbiddenTarget", "TooManySecrets", "WebhookSecrets", "WebhookTargets"]
