"""Entry of a Python instance: serves a scoring script with azureml-inference-server-http on a loopback port of its own.

Started by the Python launcher with the interpreter of the prepared environment, never imported. The scoring script is
`AZUREML_ENTRY_SCRIPT` in the folder `AML_APP_ROOT`. Everything about it is the package's own doing but three things:

- It listens on 127.0.0.1 only, on a port the system chose. The package's command would listen on all addresses, so
  gunicorn is handed a socket that is bound already, the way systemd does it.
- The first worker that has finished `init()` tells the port to the parent process, on the channel Node.js gave it.
- It ends when the parent process has gone.

Exit codes: 0 stopped as asked, 3 the script could not be loaded or its `init()` failed (the package's own code for it).
Python 3.8 or newer, no package but the server's.
"""

import fcntl
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import time

PACKAGE = "azureml_inference_server_http"
HOST = "127.0.0.1"
EXIT_INIT = 3
# Where a process that is handed sockets finds the first one (sd_listen_fds).
LISTEN_FD = 3
LOOK_EVERY_S = 1.0


def say(text):
    sys.stderr.write("modeltap: %s\n" % text)
    sys.stderr.flush()


def take_channel():
    """The channel to the parent, out of the way of LISTEN_FD and unknown to what the script starts; None without one."""
    os.environ.pop("NODE_CHANNEL_SERIALIZATION_MODE", None)
    given = os.environ.pop("NODE_CHANNEL_FD", None)
    if given is None:
        return None
    channel = fcntl.fcntl(int(given), fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(int(given))
    return channel


def watch_parent(channel, grace_s):
    """Ends this process when the parent has gone: SIGTERM, and SIGKILL to its group after `grace_s`.

    A process of its own looks, since the script may be in an endless loop and a thread must not be there when gunicorn
    forks. It ends with this process.
    """
    master = os.getpid()
    if os.fork() != 0:
        return
    try:
        if parent_has_gone(channel, master):
            os.kill(master, signal.SIGTERM)
            until = time.monotonic() + grace_s
            while os.getppid() == master and time.monotonic() < until:
                time.sleep(0.1)
            if os.getpgrp() == master:
                os.killpg(master, signal.SIGKILL)
            elif os.getppid() == master:
                os.kill(master, signal.SIGKILL)
    finally:
        os._exit(0)


def parent_has_gone(channel, master):
    """Waits for the end of the channel (True) or of the process to watch over (False)."""
    while os.getppid() == master:
        readable, _, _ = select.select([channel], [], [], LOOK_EVERY_S)
        if not readable:
            continue
        try:
            if os.read(channel, 4096) == b"":
                return True
        except OSError:
            return True
    return False


def bind():
    """Binds a loopback port and leaves it as LISTEN_FD for gunicorn; gives the port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((HOST, 0))
    port = listener.getsockname()[1]
    if listener.fileno() == LISTEN_FD:
        listener.detach()
    else:
        os.dup2(listener.fileno(), LISTEN_FD)
        listener.close()
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = "1"
    return port


def report(channel, port):
    """Tells the parent that requests are answered; once a worker, of which the parent takes the first."""
    if channel is None:
        return
    message = json.dumps({"type": "listening", "port": port}) + "\n"
    try:
        os.write(channel, message.encode("ascii"))
    except OSError:
        pass  # The parent has gone: the watcher sees to it.


def adapt_gunicorn(channel, port, grace_s):
    """Adds to whatever the package and the user's own settings say what an instance needs."""
    import gunicorn.app.wsgiapp

    class Application(gunicorn.app.wsgiapp.WSGIApplication):
        def load_config(self):
            super().load_config()
            cfg = self.cfg
            before = cfg.post_worker_init

            def ready(worker):
                before(worker)
                say("%s is served on port %d by process %d" % (os.environ["AZUREML_ENTRY_SCRIPT"], port, os.getpid()))
                report(channel, port)

            cfg.set("post_worker_init", ready)
            cfg.set("graceful_timeout", max(1, min(cfg.graceful_timeout, int(grace_s))))
            # It would bind once more instead of taking the socket it was handed.
            cfg.set("reuse_port", False)
            # Newer ones listen on a Unix socket in the user's folder, where instances would meet.
            if "control_socket_disable" in cfg.settings:
                cfg.set("control_socket_disable", True)

    gunicorn.app.wsgiapp.WSGIApplication = Application


def load_server():
    """The package's own command, or an exit that says what is missing."""
    try:
        if importlib.util.find_spec(PACKAGE) is None:
            say(
                "this environment has no azureml-inference-server-http, which serves Python scoring scripts. "
                "Add azureml-defaults (or azureml-inference-server-http) to the pip section of conda_file"
            )
            sys.exit(EXIT_INIT)
        from azureml_inference_server_http import amlserver
    except ImportError as error:
        say("azureml-inference-server-http of this environment cannot be imported: %s" % error)
        sys.exit(EXIT_INIT)
    return amlserver


def main():
    # This file's folder is no place to import from.
    sys.path.pop(0)
    channel = take_channel()
    grace_s = int(os.environ.get("MODELTAP_STOP_DEADLINE_MS", "9000")) / 1000
    if channel is not None:
        watch_parent(channel, grace_s)
    # For what the script starts; this process has -u.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    amlserver = load_server()
    port = bind()
    adapt_gunicorn(channel, port, grace_s)
    # Where nothing else says so, not even the package's texts name all addresses.
    amlserver.DEFAULT_HOST = HOST
    sys.argv = ["azmlinfsrv", "--entry_script", os.environ["AZUREML_ENTRY_SCRIPT"], "--port", str(port)]
    amlserver.run()


main()
