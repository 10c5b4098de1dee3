FROM ubuntu:20.04
LABEL maintainer=easybuild@lists.ugent.be


RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y python3 python3-pip lmod \
        curl wget git bzip2 gzip tar zip unzip xz-utils \
        patch automake git debianutils \
        g++ libdata-dump-perl libthread-queue-any-perl libssl-dev

RUN OS_DEPS='rdma-core-devel libibverbs-devel libibverbs-dev' && \
    for dep in ${OS_DEPS}; do apt-get -qq install ${dep} || true; done


RUN pip3 install -U pip setuptools && \
    hash -r pip3&& \
    pip3 install -U easybuild

RUN mkdir /app && \
    mkdir /scratch && \
    mkdir /scratch/tmp && \
    useradd -m -s /bin/bash easybuild && \
    chown easybuild:easybuild -R /app && \
    chown easybuild:easybuild -R /scratch


USER easybuild

RUN set -x && \
    . /usr/share/lmod/lmod/init/sh && \
    eb --robot PyTorch-2.3.0-foss-2023b-CUDA-12.4.0.eb --installpath=/app/ --prefix=/scratch --tmpdir=/scratch/tmp

RUN touch ${HOME}/.bashrc && \
    echo '' >> ${HOME}/.bashrc && \
    echo '# Added by easybuild docker packaging' >> ${HOME}/.bashrc && \
    echo 'source /usr/share/lmod/lmod/init/bash' >> ${HOME}/.bashrc && \
    echo 'module use /app/modules/all' >> ${HOME}/.bashrc && \
    echo 'module load PyTorch/2.3.0-foss-2023b-CUDA-12.4.0' >> ${HOME}/.bashrc

CMD ["/bin/bash", "-l"]