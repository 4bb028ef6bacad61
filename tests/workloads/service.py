# A web service whose answers are computed by the interpreter.


def fingerprint(text):
    state = 0
    for letter in text:
        state = (state * 31 + ord(letter)) & 0xFFFFFFFF
    return state


def application(environ, start_response):
    body = str(fingerprint("the time of threads " * 2500)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
