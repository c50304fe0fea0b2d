# Serves models/served (after `make repro` or `dvc pull`):
#   docker build --tag hiwl . && docker run --rm --publish 5001:5001 hiwl
FROM python:3.11-slim
WORKDIR /srv
COPY models/served/requirements.txt served/requirements.txt
# PyTorch's own index has the CPU builds, which are a tenth as large.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r served/requirements.txt
COPY models/served served
ENV HIWL_ACCELERATOR=cpu MLFLOW_DISABLE_TELEMETRY=true
USER nobody
EXPOSE 5001
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5001/ping')"]
CMD ["mlflow", "models", "serve", "--model-uri", "served", "--env-manager", "local", "--host", "0.0.0.0", "--port", "5001"]
