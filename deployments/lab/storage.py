"""Data folders: made once, copied for each node and for each reset, and what is written in their configuration."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from .addresses import DATABASE, NODES, POSTGRES_PORT, Addresses, NodeName, other
from .binaries import Binaries

# fsync stays on: no power is ever lost here, so off would lose nothing either, but a promotion would look faster
# than it is. autovacuum and logging stay as a careful team would have them.
_COMMON = """
port = {port}
unix_socket_directories = ''
max_connections = 100
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
wal_level = replica
wal_log_hints = on
wal_keep_size = 64MB
min_wal_size = 48MB
max_wal_senders = 8
max_replication_slots = 8
hot_standby = on
wal_receiver_timeout = 30s
max_slot_wal_keep_size = 1GB
password_encryption = scram-sha-256
log_line_prefix = '%m [%p] %q%u@%d/%a '
log_checkpoints = off
timezone = 'UTC'
log_timezone = 'UTC'
include = 'node.conf'
"""

_NODE = """
listen_addresses = '{listen}'
cluster_name = '{name}'
primary_conninfo = 'host={upstream} port={port} user=replicator password={password} application_name={name} connect_timeout=2'
primary_slot_name = '{name}'
"""

_HBA = """
include_if_exists closed.conf
host all         all        127.0.0.0/8 scram-sha-256
host replication replicator 127.0.0.0/8 scram-sha-256
"""

_ROLES = """
create role checkout login password '{password}'
create role replicator login replication password '{password}'
create database {database} owner checkout
select pg_create_physical_replication_slot('west')
"""

# No unique constraint on ref: duplicates are to be a measured fact, not an impossibility.
_SCHEMA = """
alter schema public owner to checkout
set session authorization checkout
create table orders (id bigserial primary key, ref uuid not null, region text not null, node text not null default current_setting('cluster_name'), instance text not null, item text not null, amount integer not null, created_at timestamptz not null default clock_timestamp())
create index orders_ref on orders (ref)
create table heartbeat (id integer primary key, at timestamptz not null)
insert into heartbeat values (1, clock_timestamp())
"""

_SYNC = """
alter system set synchronous_standby_names = 'west'
"""


@dataclass(frozen=True)
class Storage:
    """The lab's data folders below `folder`, which PostgreSQL's user owns."""

    addresses: Addresses
    binaries: Binaries
    folder: Path
    password: str

    @property
    def clean(self) -> Path:
        """The copy of the first day, from which both nodes are made."""
        return self.folder / "clean"

    def data(self, node: NodeName) -> Path:
        return self.folder / node / "data"

    def create(self, *, sync: bool) -> None:
        """Make the clean copy: a cluster with roles, database and schema that has never been started as a server."""
        self.folder.mkdir(mode=0o700)
        if self.binaries.user:
            os.chown(self.folder, self.binaries.user.uid, self.binaries.user.gid)
        self._initdb()
        (self.clean / "pg_hba.conf").write_text(_HBA)
        with (self.clean / "postgresql.conf").open("a") as conf:
            conf.write(_COMMON.format(port=POSTGRES_PORT))
        self.write_node(self.clean, "east")
        self._single("postgres", _ROLES.format(password=self.password, database=DATABASE))
        self._single(DATABASE, _SCHEMA)
        if sync:
            self._single("postgres", _SYNC)

    def build(self, node: NodeName) -> None:
        """Make the node's data folder as on the first day: a cold base backup, west as a standby of east."""
        data = self.data(node)
        shutil.rmtree(data.parent, ignore_errors=True)
        data.parent.mkdir(mode=0o700)
        self.own(data.parent)
        self.binaries.run("cp", "-a", "--reflink=auto", str(self.clean), str(data))
        self.write_node(data, node)
        if node == NODES[1]:
            shutil.rmtree(data / "pg_replslot" / node)  # a base backup carries no slots
            (data / "standby.signal").touch()
            self.own(data / "standby.signal")

    def _initdb(self) -> None:
        # initdb reads the password from a file that PostgreSQL's user must be able to open.
        file = self.folder / f"initdb-{secrets.token_hex(4)}"
        file.touch(mode=0o600)
        file.write_text(self.password)
        self.own(file)
        try:
            # fmt: off
            self.binaries.run(
                self.binaries.program("initdb"), "--pgdata", str(self.clean), "--username", "failover", "--pwfile",
                str(file), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums",
                "--no-sync", "--no-instructions",
            )
            # fmt: on
        finally:
            file.unlink()

    def _single(self, database: str, sql: str) -> None:
        """Run statements in single-user mode: no server to wait for, one statement a line."""
        program = self.binaries.program("postgres")
        output = self.binaries.run(program, "--single", "-D", str(self.clean), database, stdin=sql.lstrip())
        if "ERROR" in output or "FATAL" in output:
            raise RuntimeError(f"the lab's own schema is wrong: {output.replace(self.password, '***')[-2000:]}")

    def write_node(self, data: Path, node: NodeName) -> None:
        """Write what makes a data folder this node's: its address, its name, and whom it follows as a standby."""
        upstream = self.addresses.way(other(node), "replication")
        text = _NODE.format(
            listen=self.addresses.own_side(node).host,
            name=node,
            upstream=upstream.host,
            port=upstream.port,
            password=self.password,
        )
        file = data / "node.conf"
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(text)
        self.own(file)

    def own(self, path: Path) -> None:
        """Give a file to the user that PostgreSQL runs as."""
        if self.binaries.user:
            os.chown(path, self.binaries.user.uid, self.binaries.user.gid)
