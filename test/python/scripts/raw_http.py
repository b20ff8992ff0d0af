from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request: AMLRequest):
    if request.method == "GET":
        return AMLResponse("asked for " + request.args["what"], 200)
    response = AMLResponse(request.get_data(cache=False)[::-1], 201)
    response.headers["x-length"] = str(request.content_length)
    response.headers["content-type"] = "application/octet-stream"
    return response
