"""How a node comes by its model: the artifact its parameters name, verified and warm."""

from pathlib import Path

from worldpilot.errors import ArtifactError
from worldpilot.models import signing
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot_nodes.base import PilotNode


def load(node: PilotNode) -> Artifact:
    """Load what `task`, `artifact`, `provider` and `threads` ask for; every graph has run once when it returns.

    Raises:
        ArtifactError: it does not match its manifest, is of another task, or `public_key` has not signed it.
    """
    path = Path(node.params.artifact) if node.params.artifact else zoo_path(node.params.task)
    require_signature(node, path)
    artifact = Artifact.load(path, provider=node.params.provider, threads=node.params.threads)
    if artifact.spec.task != node.params.task:
        raise ArtifactError(f"{path} is for task {artifact.spec.task!r}, this node runs {node.params.task!r}")
    node.get_logger().info(f"model {artifact.spec.model_id} from {path} on {node.params.provider}")
    return artifact


def require_signature(node: PilotNode, folder: Path) -> None:
    """Refuse a folder that `public_key` has not signed; without a key, none.

    Raises:
        ArtifactError: with the reason.
        InvalidInput: the key cannot be read, or the extra `sign` is not installed.
    """
    if node.params.public_key:
        signing.require(folder, Path(node.params.public_key))
