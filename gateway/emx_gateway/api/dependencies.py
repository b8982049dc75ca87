"""What endpoints ask FastAPI for: the services, the audit log, and a caller with the scope that they need."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request, Response, Security, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import AfterValidator, BeforeValidator

from emx_gateway.auth.audit import RequestAudit
from emx_gateway.auth.authenticator import Authenticator, Caller, unauthenticated
from emx_gateway.auth.local_only import LocalOnlyGuard
from emx_gateway.auth.rate_limits import RateLimits
from emx_gateway.http.problems import Problem, invalid_fields
from emx_gateway.services.services import Services

_bearer = HTTPBearer(auto_error=False, description="An API key: emx_…. Needed once the operator has created any.")


def admit(
    request: Request,
    needed: SecurityScopes,
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
) -> Caller:
    """Return the caller. Raises Problem 401, 403 or 429."""
    authenticator: Authenticator = request.app.state.authenticator
    rate_limits: RateLimits = request.app.state.rate_limits
    if shown is None and "authorization" in request.headers:
        raise unauthenticated("The Authorization header must be: Bearer emx_….")
    caller = authenticator.caller(shown.credentials if shown else None)
    caller = replace(caller, request_id=request.state.request_id)
    request.state.caller = caller
    if caller.key is None:
        local_only: LocalOnlyGuard = request.app.state.local_only
        local_only.check(request)
    for scope in needed.scopes:
        if scope not in caller.scopes:
            raise Problem(403, "out-of-scope", f"This API key lacks the scope {scope!r}.")
    kind = "submit" if "submit" in needed.scopes else "read"
    request.state.headers = rate_limits.admit(caller.tenant, kind)
    return caller


Submitter = Annotated[Caller, Security(admit, scopes=["submit"])]
ReadCaller = Annotated[Caller, Security(admit, scopes=["read"])]
Administrator = Annotated[Caller, Security(admit, scopes=["admin"])]


async def _services(request: Request) -> Services:  # a plain function would cost a turn in the pool of threads
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


async def _audit(request: Request) -> RequestAudit:
    return RequestAudit(request.app.state.auditor, request)


GatewayServices = Annotated[Services, Depends(_services)]
Audit = Annotated[RequestAudit, Depends(_audit)]
Cursor = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")]


def _written_out(moment: object) -> object:
    if isinstance(moment, str) and moment.lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("write a time as RFC 3339 does: 2026-03-04T05:06:07Z")
    return moment


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A time as RFC 3339 writes it; without a zone it is in UTC."""


async def known_query(request: Request) -> None:
    """Refuse query parameters that an endpoint doesn't have: a filter that is misspelt would filter nothing.

    Raises:
        Problem: 422 that names them.
    """
    route = request.scope["route"]
    known = {
        field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)
    }
    known |= {each["name"] for each in (route.openapi_extra or {}).get("parameters", ()) if each["in"] == "query"}
    unknown = request.query_params.keys() - known
    if unknown:
        raise invalid_fields([{"where": f"query.{name}", "what": "Unknown parameter"} for name in sorted(unknown)])


def link_to_next(request: Request, response: Response, name: str, place: object) -> None:
    """Add the header Link to the next page (RFC 8288): this one's address with another cursor.

    Args:
        request: for this page.
        response: to it.
        name: of the parameter that says where a page begins.
        place: where the next one does; None on the last page.
    """
    if place is None:
        return
    response.headers["Link"] = f'<?{request.url.include_query_params(**{name: place}).query}>; rel="next"'


def address_of(request: Request, path: str) -> str:
    """Return a path of this server as its clients write it, with the prefix that a proxy puts before it."""
    return f"{request.scope.get('root_path', '')}{path}"
