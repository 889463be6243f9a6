"""The operator's key: given, or made on first start."""

import logging
import os

from roost_gateway.settings import Settings
from roost_platform.domain.tenants import make_secret

logger = logging.getLogger(__name__)


def operator_key(settings: Settings) -> str:
    """The key given, or the one in the data folder, made on first start and readable by its owner only."""
    if settings.operator_key is not None:
        return settings.operator_key.get_secret_value()
    path = settings.data / "operator.key"
    if not path.exists() or not path.read_text().strip():
        # Under its name it is whole: a process killed while it writes must not leave an empty file, taken for a key.
        made = path.with_suffix(".new")
        made.unlink(missing_ok=True)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make_secret() + "\n")
            file.flush()
            os.fsync(descriptor)
        made.rename(path)
        logger.info("operator_key_made", extra={"file": str(path)})
    return path.read_text().strip()
