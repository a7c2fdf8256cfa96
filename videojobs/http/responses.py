"""How a response is read from a connection."""

from http.client import CONTINUE, SWITCHING_PROTOCOLS, HTTPException, HTTPResponse


class FinalResponse(HTTPResponse):
    """Reads past all interim responses (RFC 9110, 15.2), such as 103; http.client only past 100.

    What follows an interim response would otherwise be read as the response to the next request.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == SWITCHING_PROTOCOLS:
            raise HTTPException("the server switched to another protocol")
        return version, CONTINUE if 100 <= status < 200 else status, reason
