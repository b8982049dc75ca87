# Two images from one file: `--target gateway` (also the courier's; no torch) and `--target worker`.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 \
    PYTHONPATH=/app:/app/shared:/app/gateway:/app/worker
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin emx
WORKDIR /app

FROM base AS gateway
COPY requirements-gateway.txt .
RUN pip install --no-cache-dir -r requirements-gateway.txt
COPY shared shared
COPY gateway gateway
COPY explainmyxray explainmyxray
COPY models/demo/sample.png models/demo/sample.png
USER 10001:10001
EXPOSE 8000
CMD ["python", "-P", "-m", "emx_gateway"]

FROM base AS worker
# torch from PyPI brings CUDA, several gigabytes that a CPU doesn't need: name PyTorch's CPU index to do without.
ARG TORCH_INDEX=""
COPY requirements-worker.txt .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements-worker.txt \
    && install -d -o emx -g emx /home/emx/.cache
COPY shared shared
COPY worker worker
COPY models models
USER 10001:10001
CMD ["python", "-P", "-m", "emx_worker"]
