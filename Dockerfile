# One image for the operator and its workers. `make image-wheels` makes the build context: wheels of memferry, of the
# operator and of everything they need, so that nothing is fetched here or at run time.
#
#   make image-wheels && buildah bud -t memferry build/image
ARG BASE=python:3.11-slim

FROM ${BASE} AS install
COPY wheels/ /wheels/
RUN python3 -m venv --without-pip /opt/memferry \
 && python3 -m pip --python /opt/memferry/bin/python install --no-index --find-links /wheels --no-cache-dir \
    --disable-pip-version-check "memferry[kubernetes,neo4j]" memferry-operator

FROM ${BASE}
COPY --from=install /opt/memferry /opt/memferry
# The application of examples/cluster/application.yaml: to try a switch with, before yours is there.
COPY application_in_cluster.py /opt/memferry/examples/
# XDG folders: with a read-only root only what is mounted can be written.
ENV PATH=/opt/memferry/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# By number, so that runAsNonRoot can be checked; a migration's workers get the number of the files' owner.
USER 65532:65532
WORKDIR /tmp
RUN memferry backends && python -c "import memferry_operator.main"
CMD ["memferry", "--help"]
