"""Whoever may use the API may read its documentation, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from mistral_api.security.audit import AuditLog
from mistral_api.security.gate import PAGES, PUBLIC_PATHS, Gate
from mistral_api.security.rate_limits import RateLimits
from mistral_api.services import EXTENSION
from mistral_api.settings import Settings
from mistral_api.web import BLUEPRINTS, documentation
from mistral_api.web.errors import handle_errors
from mistral_api.web.guard import guard_requests
from mistral_api.web.operations import OPERATIONS
from mistral_api.web.request import register_request_ids
from tests.support.error_shape import assert_error_shape
from tests.support.keys import key_ring


def _status(path: str, address: str, settings: Settings) -> tuple[int, Any]:
    app = Flask("mistral_api", static_folder=None)
    register_request_ids(app)
    handle_errors(app)
    guard_requests(app)
    app.register_blueprint(documentation.blueprint)
    # The guard reads only this.
    gate, audit_log = Gate(settings, key_ring()), AuditLog(settings.data_dir)
    app.extensions[EXTENSION] = SimpleNamespace(gate=gate, audit_log=audit_log, rate_limits=RateLimits())
    with app.test_client().get(path, environ_base={"REMOTE_ADDR": address}) as answer:
        return answer.status_code, answer.get_json(silent=True)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/start.js", "/no/such/path"])
def test_documentation_is_refused_to_remote_callers(path: str) -> None:
    status, body = _status(path, "192.168.1.7", Settings())
    assert status == 401
    assert_error_shape(body, code="invalid_api_key")


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js"])
def test_documentation_is_served_locally_and_with_allow_anonymous(path: str) -> None:
    assert _status(path, "127.0.0.1", Settings())[0] == 200
    assert _status(path, "192.168.1.7", Settings(allow_anonymous=True))[0] == 200


def test_public_paths_and_pages_are_routes_and_nothing_else_is_public() -> None:
    app = Flask("mistral_api", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    routes = [(rule.rule, rule.endpoint) for rule in app.url_map.iter_rules()]
    assert {endpoint for _, endpoint in routes} == set(OPERATIONS)
    assert {path for path, endpoint in routes if OPERATIONS[endpoint].public} == PUBLIC_PATHS
    assert {path for path, _ in routes} >= PAGES
    assert all(operation.scope is None for operation in OPERATIONS.values() if operation.public)
