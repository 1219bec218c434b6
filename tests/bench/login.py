"""A browser that signs in: follows the redirects from a protected page to the provider and back, and keeps the cookies."""

import http.client
import ssl
from urllib.parse import urljoin, urlsplit

from processes import Trouble

# What a browser sends with a page that its user has asked for.
NAVIGATION = {
    "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1",
    "Accept": "text/html",
}


def unverified():
    """For the certificate that this run has made itself."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def get(url, headers, upload=None):
    """Status, headers and body of the answer to one GET, or to one POST of what is to be uploaded."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=10, context=unverified())
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("POST" if upload else "GET", parts._replace(scheme="", netloc="").geturl(), body=upload, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def sign_in(start, cookie):
    """Goes to `start` and whereto it leads, until the cookie of that name is there. Its value."""
    jars, url = {}, start  # a jar for each host and port: all hosts are one here
    for _ in range(12):
        jar = jars.setdefault(urlsplit(url).netloc, {})
        sent = "; ".join(f"{name}={value}" for name, value in jar.items())
        status, headers, body = get(url, NAVIGATION | ({"Cookie": sent} if sent else {}))
        for line in headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            jar[name] = value
        if urlsplit(url).netloc == urlsplit(start).netloc and jar.get(cookie):
            return jar[cookie]
        if "Location" not in headers:
            raise Trouble(f"no login: {url} answers {status}: {body[:500]!r}")
        url = urljoin(url, headers["Location"])
    raise Trouble(f"no login: redirected in a circle, at last to {url}")
