"""An MLflow server, 2.x or 3.x, as publishing needs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from modelgate.publish import bundle
from modelgate.publish.versions import ModelVersion, f1_of

T = TypeVar("T")

ALIAS, STAGE = "production", "Production"
ARTIFACTS = "bundle"
_ATTEMPTS = 5


class Registry:
    """A client of one server; without an address the one of MLFLOW_TRACKING_URI."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise ValueError("no MLflow server is named: give tracking_uri= or set MLFLOW_TRACKING_URI")
        self.uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    # Writing.

    def log(self, experiment: str, folder: Path, metrics: Mapping[str, float], params: Mapping[str, Any], run_name: str | None) -> Any:
        """A run with metrics, params and the bundle as artifacts."""
        client = self._client
        run = self._create_run(self._experiment(experiment), run_name)
        try:
            for name, value in params.items():
                _retry(lambda n=name, v=value: client.log_param(run.info.run_id, n, v))
            for name, value in metrics.items():
                _retry(lambda n=name, v=value: client.log_metric(run.info.run_id, n, float(v)))
            _retry(lambda: client.log_artifacts(run.info.run_id, str(folder), ARTIFACTS))
        except BaseException:
            _retry(lambda: client.set_terminated(run.info.run_id, "FAILED"))
            raise
        _retry(lambda: client.set_terminated(run.info.run_id))
        return run

    def _experiment(self, name: str) -> str:
        known = _retry(lambda: self._client.get_experiment_by_name(name))
        if known:
            return known.experiment_id
        try:
            return _retry(lambda: self._client.create_experiment(name))
        except MlflowException as err:
            # Another training script was faster, or an answer was lost and the call repeated.
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _retry(lambda: self._client.get_experiment_by_name(name)).experiment_id

    def _create_run(self, experiment_id: str, run_name: str | None) -> Any:
        mark = uuid.uuid4().hex

        def create() -> Any:
            # An answer may have been lost: then the run is there already.
            made = self._client.search_runs([experiment_id], f"tags.`modelgate.publish` = '{mark}'")
            if made:
                return made[0]
            with _not_repeated():
                return self._client.create_run(experiment_id, run_name=run_name, tags={"modelgate.publish": mark})

        return _retry(create)

    def register(self, model_name: str, run: Any, tags: Mapping[str, str]) -> str:
        """Makes a version of a run's bundle and returns its number."""
        try:
            _retry(lambda: self._client.create_registered_model(model_name))
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Not register_model("runs:/..."): newer clients refuse a folder without an MLmodel file.
        source, run_id = f"{run.info.artifact_uri}/{ARTIFACTS}", run.info.run_id

        def create() -> str:
            # As above: a version must not be made twice.
            made = [v for v in self._client.search_model_versions(f"name='{model_name}'") if v.run_id == run_id]
            if made:
                return str(made[0].version)
            with _not_repeated():
                return str(self._client.create_model_version(model_name, source, run_id, tags=dict(tags)).version)

        return _retry(create)

    def promote(self, model_name: str, version: str, pointer: str = "auto") -> str:
        """Points the alias to a version; the stage on servers that know no aliases. Returns what it has set."""
        if pointer not in ("auto", "alias", "stage"):
            raise ValueError(f"pointer is {pointer!r}: it is auto, alias or stage")
        if pointer != "stage":
            try:
                _retry(lambda: self._client.set_registered_model_alias(model_name, ALIAS, version))
                return f"alias:{ALIAS}"
            except MlflowException as err:
                if pointer == "alias" or err.error_code != "ENDPOINT_NOT_FOUND":
                    raise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages will go one day, and with them the servers that need them
            _retry(lambda: self._client.transition_model_version_stage(model_name, version, STAGE))
        return f"stage:{STAGE}"

    # Reading.

    def version(self, model_name: str, version: str, pointer: str = "") -> ModelVersion:
        """One version with its F1."""
        v = _retry(lambda: self._client.get_model_version(model_name, str(version)))
        return ModelVersion(model_name, str(v.version), self._f1(v), v.run_id or "", v.source, pointer, dict(v.tags or {}))

    def promoted(self, model_name: str) -> ModelVersion | None:
        """What the alias names, else the newest version in the stage."""
        try:
            by_alias = _retry(lambda: self._client.get_model_version_by_alias(model_name, ALIAS))
            return self.version(model_name, by_alias.version, f"alias:{ALIAS}")
        except MlflowException as err:
            if err.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND"):
                raise
        staged = [v for v in self._versions(model_name) if v.current_stage == STAGE]
        return self.version(model_name, _newest(staged), f"stage:{STAGE}") if staged else None

    def newest(self, model_name: str) -> ModelVersion | None:
        """The version with the highest number: "10" is newer than "9"."""
        versions = self._versions(model_name)
        return self.version(model_name, _newest(versions), "newest") if versions else None

    def _versions(self, model_name: str) -> list[Any]:
        return list(_retry(lambda: self._client.search_model_versions(f"name='{model_name}'", max_results=1000)))

    def _f1(self, v: Any) -> float | None:
        # MLflow 3 keeps the metrics of a logged model with the model.
        if (v.source or "").startswith("models:/m-") and hasattr(self._client, "get_logged_model"):
            logged = _retry(lambda: self._client.get_logged_model(v.source.removeprefix("models:/")))
            f1 = f1_of({m.key: m.value for m in sorted(logged.metrics or [], key=lambda m: (m.timestamp, m.step))})
            if f1 is not None:
                return f1
        return f1_of(_retry(lambda: self._client.get_run(v.run_id)).data.metrics) if v.run_id else None

    def download(self, version: ModelVersion, target: Path) -> Path:
        """Fetches the files of exactly this version into target, which must not exist, and checks them. Whole or not at all."""
        if target.exists():
            raise FileExistsError(f"{target} exists: nothing is overwritten")
        target.parent.mkdir(parents=True, exist_ok=True)
        uri = _retry(lambda: self._client.get_model_version_download_uri(version.model_name, version.version))
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            got = Path(_retry(lambda: mlflow.artifacts.download_artifacts(uri, dst_path=str(scratch), tracking_uri=self.uri)))
            digest = bundle.verify(got)
            if version.digest and digest != version.digest:
                raise bundle.BundleError(
                    f"{version.model_name} version {version.version} has the digest {digest}, it was published with {version.digest}"
                )
            got.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target


def _newest(versions: list[Any]) -> str:
    return str(max(int(v.version) for v in versions))


@contextlib.contextmanager
def _not_repeated() -> Iterator[None]:
    """Has MLflow's client not repeat a call by itself, which would make a second run or version of one whose answer was lost.

    It knows only this switch for the whole program; other threads' calls are not repeated either for that long.
    """
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _retry(call: Callable[[], T]) -> T:
    """Repeats a call whose connection broke.

    The server closes idle connections after five seconds, and a request that crosses that is reset. Calls that make something ask
    first whether it was made, so all may be repeated.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except (MlflowException, requests.ConnectionError, ConnectionError) as err:
            if not unreachable(err):
                raise
            time.sleep(0.1 * 2**attempt)
    return call()


def unreachable(err: BaseException | None) -> bool:
    """Whether a call failed because its connection did."""
    while err is not None:
        if isinstance(err, (requests.ConnectionError, ConnectionError)):
            return True
        if isinstance(err, MlflowException) and "failed with exception" in str(err) and "Connection" in str(err):
            return True
        err = err.__cause__
    return False
