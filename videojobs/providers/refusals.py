"""What the `code` of an answer stands for, and its message where the code says nothing.

The provider documents no codes. Numbers are those of HTTP; words are those of similar services.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..conf import conf
from ..exceptions import KeyRejected, ProviderError, RateLimited, Refused, TaskNotFound, Unavailable
from ..sanitize import clean
from . import answers
from .answers import code_text

#: Codes with which nothing is wrong, besides zeros.
_FINE = frozenset({"200", "201", "202", "ok", "success", "succeeded"})
#: HTTP statuses that say nothing about the request. The last ones leave its effect unknown.
_NUMBERS: Mapping[str, type[ProviderError]] = {
    **dict.fromkeys(("401", "402", "403"), KeyRejected),
    "404": TaskNotFound,
    "429": RateLimited,
    **dict.fromkeys(("407", "408", "409", "423", "425", "500", "502", "503", "504"), Unavailable),
}
# Words are compared without case and separators.
_WORDS: Mapping[type[ProviderError], re.Pattern[str]] = {
    KeyRejected: re.compile(
        r"unauthori[sz]ed|unauthenticated|authentication(error|failed)|forbidden|"
        r"(invalid|wrong|incorrect)(api)?(key|token)|apikeyinvalid|accessdenied|"
        r"permission(denied|error)|"
        r"insufficient(user|account)?(balance|quota|credits?|funds)|balanceinsufficient|"
        r"notenough(balance|quota|credits?|funds)|quotaexceeded|billing\w*|paymentrequired|"
        r"arrearage|account(overdue(error)?|deactivated|suspended|disabled)"
    ),
    RateLimited: re.compile(
        r"ratelimit(ed|error|exceeded|reached)?|toomanyrequests|requestlimitexceeded|throttl\w*|"
        r"concurrencylimit(exceeded|reached)?"
    ),
    Unavailable: re.compile(
        r"(system|server|service)?busy|(system|server|internal|internalserver|api)error|"
        r"(service|temporarily)?unavailable|overloaded(error)?|(gateway)?timeout|badgateway"
    ),
}
#: Phrases of messages, for codes that say nothing.
_PHRASES: Mapping[type[ProviderError], re.Pattern[str]] = {
    KeyRejected: re.compile(
        r"insufficient (account |user )?(balance|quota|credits?|funds)|"
        r"(balance|quota|credits?) (is |are )?(insufficient|not enough|exhausted|used up)|"
        r"not enough (balance|quota|credits?|funds)|"
        r"(invalid|incorrect|wrong|expired) (api[ _-]?key|token)|unauthori[sz]ed|"
        r"余额不足|额度不足|欠费|无效的?(令牌|密钥)|未授权|鉴权失败",
        re.IGNORECASE,
    ),
    RateLimited: re.compile(
        r"too many requests|rate limit|requests? too (fast|frequent)|"
        r"请求(过于|太)?频繁|频率(过快|限制)",
        re.IGNORECASE,
    ),
    Unavailable: re.compile(
        r"(system|server|service) (is )?(too )?busy|service (is )?(temporarily )?unavailable|"
        r"overloaded|try again later|internal (server )?error|"
        r"(系统|服务|服务器)(繁忙|异常|错误|不可用)|稍后(再|重)试",
        re.IGNORECASE,
    ),
}
#: Longer messages are texts about something else.
_LONGEST_PHRASE = 200
#: Codes of anything that is wrong with a request: the message decides.
_ANYTHING = re.compile(r"400|(?:bad|invalid).?request(?:.?error)?", re.IGNORECASE)
#: Codes and messages about the request itself.
_ABOUT_REQUEST = re.compile(
    r"4(?:13|15|22|51)|.*(?:content.?(?:policy|filter)|polic(?:y|ies)|moderat|sensitive|"
    r"safety|nsfw|prohibited|inappropriate|copyright|prompt|"
    r"invalid.?(?:request|param|input|argument|image|value)|bad.?request|validation|"
    r"提示词|敏感|违规|违禁|审核|参数).*",
    re.IGNORECASE | re.DOTALL,
)
_VARYING = re.compile(r"\S*\d\S*|\"[^\"]*\"|'[^']*'")


@dataclass(frozen=True)
class Refusal:
    """What an answer says against a request."""

    #: "" if only a message or `success` says no.
    code: str
    message: str

    def __str__(self) -> str:
        text = self.message or "no reason given"
        code = f"code {self.code[:60]}"
        return clean(text if not self.code or code in text else f"{text} ({code})")

    def stands_for(self, prompt: str = "") -> type[ProviderError] | None:
        """The error it stands for if it says nothing about the request; else None.

        A phrase of the `prompt`, which the message may quote, doesn't count.
        """
        if self.code in map(str, conf.HOLD_CODES):
            return KeyRejected
        if self.code in map(str, conf.REFUSAL_CODES):
            return None
        if found := _NUMBERS.get(self.code):
            return found
        word = re.sub(r"[\W_]", "", self.code.lower())
        for kind, words in _WORDS.items():
            if words.fullmatch(word):
                return kind
        if len(self.message) > _LONGEST_PHRASE or self._names_request():
            return None
        for kind, phrases in _PHRASES.items():
            match = phrases.search(f"{self.code} {self.message}")
            if match and match[0].lower() not in prompt.lower():
                return kind
        return None

    def _names_request(self) -> bool:
        """Whether the code itself concerns the request."""
        is_vague = _ANYTHING.fullmatch(self.code) is not None
        return not is_vague and _ABOUT_REQUEST.fullmatch(self.code) is not None

    def refused(self) -> Refused:
        error = Refused(str(self))
        error.is_known = (
            self.code in map(str, conf.REFUSAL_CODES)
            or self._names_request()
            or _ABOUT_REQUEST.fullmatch(self.message) is not None
        )
        error.kind = clean(f"{self.code} {_VARYING.sub('', self.message)}", 200)
        return error


def refusal(answer: Mapping[str, Any] | None, http_status: int = 200) -> Refusal | None:
    """What an answer says against a request by a code, or by `success`; None if nothing.

    The HTTP status as the code of an error object is no code of its own.
    """
    if answer is None:
        return None
    top, message = answers.fields(answer), answers.reason(answers.objects(answer))
    for name in ("code", "errorcode", "errcode"):
        code = code_text(top.get(name))
        if code.strip("0.") and code.lower() not in _FINE:
            return Refusal(code, message)
    error = answers.fields(error) if isinstance(error := top.get("error"), dict) else {}
    for name in ("code", "type"):
        code = code_text(error.get(name))
        if code.strip("0.") and code != str(http_status):
            return Refusal(code, message)
    if top.get("success") is False:
        return Refusal("", message)
    return None
