#!/bin/sh
# A Slurm cluster of one node for tests, from Debian's packages. Everything it needs lives in one folder of its own;
# nothing below /etc is read or written.
#
#   sh setup_slurm.sh install      slurm-wlm and munge by apt-get (as root, once); no daemon is started
#   sh setup_slurm.sh start DIR    munged, slurmctld and slurmd; prints the value for SLURM_CONF
#   sh setup_slurm.sh stop DIR     end what start began, by process id
set -eu

install() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then # packages would start their own daemons
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update -q
    apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends munge slurm-wlm
}

start() {
    dir=$1
    host=$(hostname -s)
    mkdir -p "$dir/spool" "$dir/state"
    chmod 755 "$dir"
    dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 2> /dev/null
    chmod 400 "$dir/munge.key"
    munged --force --key-file "$dir/munge.key" --socket "$dir/munge.socket" --pid-file "$dir/munged.pid" \
        --log-file "$dir/munged.log" --seed-file "$dir/munge.seed"
    cores=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    cat > "$dir/slurm.conf" << CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((16000 + $$ % 2000 * 2))
SlurmdPort=$((16001 + $$ % 2000 * 2))
SlurmUser=root
SlurmdUser=root
# A requeued job waits until the credential of its last start has expired: 120 s, were it not set.
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=20
# One core is one CPU, whatever the hardware calls it.
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=$memory State=UNKNOWN
PartitionName=lab Nodes=$host Default=YES MaxTime=60 State=UP
CONF
    export SLURM_CONF="$dir/slurm.conf"
    slurmctld -f "$dir/slurm.conf" -c -i
    slurmd -f "$dir/slurm.conf"
    tries=0
    until sinfo -h -o %T 2> /dev/null | grep -q -e idle -e mixed -e alloc; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ]; then
            echo "the node did not come up; see $dir/slurmctld.log and slurmd.log" >&2
            exit 1
        fi
        sleep 0.5
    done
    echo "$dir/slurm.conf"
}

stop() {
    dir=$1
    for name in slurmd slurmctld munged; do
        if [ -f "$dir/$name.pid" ]; then
            pid=$(cat "$dir/$name.pid")
            kill "$pid" 2> /dev/null || continue
            tries=0
            while kill -0 "$pid" 2> /dev/null; do
                tries=$((tries + 1))
                [ "$tries" -gt 40 ] && kill -9 "$pid" 2> /dev/null
                sleep 0.25
            done
        fi
    done
}

case ${1:-} in
    install) install ;;
    start | stop) "$1" "${2:?a folder}" ;;
    *) sed -n '2,7p' "$0" ;;
esac
