"""The receiver as it is usually written: FastAPI, a session a request, a commit a request, raw body kept.

Not less than a good engineer would do: WAL, `synchronous=FULL`, a timeout long enough that nobody is refused, the
blocking work in FastAPI's threads, the token compared in constant time, the body not parsed.
"""

import hmac
import os
import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import LargeBinary, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

TOKEN = os.environ["BENCHMARK_TOKEN"]
# With one connection writers queue in Python instead of at SQLite's lock, which sleeps between tries.
POOL = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 60} if os.environ.get("BENCHMARK_ONE_CONNECTION") else {}

engine = create_engine(f"sqlite:///{os.environ['BENCHMARK_STORE']}", connect_args={"timeout": 60}, **POOL)


@event.listens_for(engine, "connect")
def configure(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL").close()
    connection.execute("PRAGMA synchronous = FULL")


class Base(DeclarativeBase):
    pass


class Callback(Base):
    __tablename__ = "callbacks"
    id: Mapped[int] = mapped_column(primary_key=True)
    received_at: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)


Base.metadata.create_all(engine)
app = FastAPI()


def database() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


async def whole_body(request: Request) -> bytes:
    return await request.body()


@app.post("/callbacks/{token}")
def receive(
    token: str, body: Annotated[bytes, Depends(whole_body)], session: Annotated[Session, Depends(database)]
) -> dict[str, bool]:
    if not hmac.compare_digest(token, TOKEN):
        raise HTTPException(404)
    session.add(Callback(received_at=time.time_ns() // 1000, body=body))
    session.commit()
    return {"received": True}
