# syntax=docker/dockerfile:1
# Three images out of one file:
#   docker build --target api .          REST API; no torch
#   docker build --target worker-cpu .   queues cpu and checks
#   docker build --target worker-gpu .   queue gpu; run it with --gpus
# Build arguments:
#   PYTHON           version of the Python base image
#   PIP_ARGS         more arguments for every pip, e.g. an index of your own
#   TORCH_CPU_ARGS   where pip finds the CPU build of torch
#   TORCH_GPU_ARGS   where pip finds the CUDA build of torch (empty: the default index has it)
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS base
ENV PATH=/opt/modelpress/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# A fixed id, so that volumes keep their owner when the image is built anew.
RUN groupadd --gid 10001 modelpress \
 && useradd --uid 10001 --gid modelpress --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin modelpress \
 && install -d -o modelpress -g modelpress -m 0700 /var/lib/modelpress/store /var/lib/modelpress/work

FROM base AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY migrations migrations
ARG PIP_ARGS=""
RUN pip wheel ${PIP_ARGS} --no-deps --wheel-dir /wheels .

FROM base AS api-packages
ARG PIP_ARGS=""
COPY constraints.txt /
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    python -m venv /opt/modelpress \
 && pip install ${PIP_ARGS} --constraint /constraints.txt "$(ls /wheels/*.whl)[oidc,otel]"

FROM api-packages AS worker-cpu-packages
ARG PIP_ARGS=""
ARG TORCH_CPU_ARGS="--index-url https://download.pytorch.org/whl/cpu"
RUN pip install ${PIP_ARGS} --constraint /constraints.txt torch ${TORCH_CPU_ARGS}
# Optional targets: --build-arg EXTRAS=executorch,litert (docs/targets.md).
ARG EXTRAS=""
COPY constraints-litert.txt /
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install ${PIP_ARGS} --constraint /constraints.txt "$(ls /wheels/*.whl)[worker${EXTRAS:+,${EXTRAS}}]" \
 && case ",${EXTRAS}," in \
      *,litert,*) pip install ${PIP_ARGS} --no-deps --requirement /constraints-litert.txt ;; \
    esac

FROM api-packages AS worker-gpu-packages
ARG PIP_ARGS=""
ARG TORCH_GPU_ARGS=""
RUN pip install ${PIP_ARGS} --constraint /constraints.txt torch ${TORCH_GPU_ARGS}
# Optional targets: --build-arg EXTRAS=executorch,litert (docs/targets.md).
ARG EXTRAS=""
COPY constraints-litert.txt /
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install ${PIP_ARGS} --constraint /constraints.txt "$(ls /wheels/*.whl)[worker${EXTRAS:+,${EXTRAS}}]" \
 && case ",${EXTRAS}," in \
      *,litert,*) pip install ${PIP_ARGS} --no-deps --requirement /constraints-litert.txt ;; \
    esac

FROM base AS runtime
ENV MODELPRESS_STORE_URL=file:///var/lib/modelpress/store \
    MODELPRESS_WORK_DIR=/var/lib/modelpress/work
WORKDIR /var/lib/modelpress
USER modelpress
ENTRYPOINT ["modelpress-server"]

FROM runtime AS worker-cpu
COPY --from=worker-cpu-packages /opt/modelpress /opt/modelpress
CMD ["worker", "--queue", "cpu", "--queue", "checks"]
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD celery -A worker.main inspect ping --timeout 5 --destination "cpu@$(hostname)"

FROM runtime AS worker-gpu
COPY --from=worker-gpu-packages /opt/modelpress /opt/modelpress
CMD ["worker", "--queue", "gpu"]
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD celery -A worker.main inspect ping --timeout 5 --destination "gpu@$(hostname)"

# The last target is the one that a plain "docker build ." makes.
FROM runtime AS api
COPY --from=api-packages /opt/modelpress /opt/modelpress
EXPOSE 8000
CMD ["api", "--host", "0.0.0.0", "--port", "8000", "--workers", "2"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"
