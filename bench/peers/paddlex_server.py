"""The PaddleX 2.1 RESTful reference, bound to loopback: paddlex_server.py PORT WORKSPACE"""

import logging
import os
import sys

from paddlex_restful.restful import app as reference
from paddlex_restful.restful.utils import get_logger

port, workspace = int(sys.argv[1]), sys.argv[2]
os.makedirs(workspace, exist_ok=True)
reference.init(workspace, get_logger(workspace + "/mcessages.log"))
reference.SD.port = port
logging.getLogger("werkzeug").setLevel(logging.ERROR)
reference.app.run(host="127.0.0.1", port=port, threaded=True)
