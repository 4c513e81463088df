"""Gives the connector its sellers: import.py ORIGIN KEY NUMBER. Uses the import route, one keep-alive connection."""
import http.client
import json
import sys
from urllib.parse import urlsplit

origin, key, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = http.client.HTTPConnection(urlsplit(origin).netloc)
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
for seller in range(1, number + 1):
    body = {
        "seller_id": f"seller-{seller}",
        "user_id": 1_000_000 + seller,
        "access_token": f"APP_USR-1-112013-{seller:032x}-{1_000_000 + seller}",
        "refresh_token": f"TG-{seller:032x}-{1_000_000 + seller}",
        "expires_in": 15_552_000,
        "verify": False,
    }
    connection.request("POST", "/v1/connections", json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status not in (201, 409):
        sys.exit(f"seller {seller}: {answer.status} {text.decode()}")
    if seller % 10_000 == 0:
        print(f"{seller} of {number} sellers", file=sys.stderr)
