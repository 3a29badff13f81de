#!/usr/bin/env bash
# Start Slurm with this machine as its only node, to try hydra/launcher=submitit_slurm. Debian, root:
#   apt-get install slurm-wlm munge && scripts/one_node_slurm.sh
set -euo pipefail
host=$(hostname -s)
mkdir -p /run/munge /var/spool/slurmctld /var/spool/slurmd
chown munge: /run/munge
pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged
cat > /etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/Mem:/ {print int($2 * 0.9)}')
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE
CONF
pgrep -x slurmctld > /dev/null || slurmctld
pgrep -x slurmd > /dev/null || slurmd
sleep 3
sinfo
