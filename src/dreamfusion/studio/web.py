"""The studio's REST interface, its events and its page."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from .. import __version__
from ..batch.overview import tile
from ..errors import UserError
from ..prompts import LONGEST
from ..run import CHECKPOINT, META
from . import offers
from .bodies import Export, Look, NewRun, Resume, RunNow, WholeRun
from .changing import asked_for
from .desk import HIDDEN, Busy, Desk
from .easel import Easel
from .exporting import export
from .guard import LOOPBACK, App, Guard
from .listing import FILES, curves, file_of, folder_of
from .repeating import again_at
from .streaming import Streams
from .uploads import keep_picture, picture_at, reference_at

STATIC = Path(__file__).parent / "static"
PICTURE = {
    "required": True,
    "content": {
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in ("png", "jpeg", "webp")
    },
}


def shape(model: Any) -> dict[str, Any]:
    """The options of a route whose answer is described by a model, and sent as it is."""
    return {"response_model": model, "response_model_exclude_unset": True}


def make_app(
    desk: Desk,
    hosts: tuple[str, ...] = LOOPBACK,
    token: str = "",
    critic: offers.Critic | None = None,
    easel: Easel | None = None,
) -> App:
    """The studio as an ASGI application. ``desk`` is started and closed by the caller; ``easel`` is closed by the server's end."""
    critic, drawing = critic or offers.Critic(), easel or Easel(desk.root / HIDDEN / "worker.log", desk.threads)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(drawing.close)

    app = FastAPI(title="dreamfusion studio", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    streams = Streams(desk)

    @app.exception_handler(UserError)
    async def mistake(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def misread(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"detail": f"{where}: {first['msg']}" if where else str(first["msg"])}, 422)

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    def known(id: str) -> dict[str, Any]:
        found = desk.run(id)
        if found is None:
            raise HTTPException(404, "there is no such run")
        return found

    @app.get("/runs", summary="All runs: the queue first, then the newest", **shape(list[RunNow]))
    def runs() -> list[dict[str, Any]]:
        return desk.runs()

    @app.post("/runs", status_code=201, summary="Put a new run into the queue", **shape(RunNow))
    def new_run(asked: NewRun) -> dict[str, Any]:
        settings = offers.check_settings(asked.preset, asked.settings)
        picture = reference_at(desk.root, desk.root / HIDDEN, asked.picture) if asked.picture else None
        if asked.start:
            begin = folder_of(desk.root, asked.start)
            if begin is None:
                raise UserError("there is no such run to begin with")
            settings = settings | {"start": str(begin)}
        if picture is None and offers.presets()[asked.preset]["picture"]:
            raise UserError(f"the preset {asked.preset} needs a picture")
        return known(desk.submit(asked.prompt, asked.preset, settings, picture))

    @app.post(
        "/pictures",
        status_code=201,
        summary="Send a reference picture as the body",
        openapi_extra={"requestBody": PICTURE},
    )
    async def new_picture(request: Request) -> dict[str, str]:
        data = await request.body()
        id = await asyncio.to_thread(keep_picture, desk.root / HIDDEN, data)
        seen = await asyncio.to_thread(critic.seen, picture_at(desk.root / HIDDEN, id))
        return {"id": id, "seen": seen}

    @app.get("/runs/{id}", summary="A run, with the curves of its log, and what repeats it", **shape(WholeRun))
    def run(id: str) -> dict[str, Any]:
        found = known(id)
        folder = folder_of(desk.root, id)
        return found | {"curves": curves(folder)} | again_at(folder) if folder else found | {"curves": []}

    @app.delete("/runs/{id}", status_code=204, summary="Move a run into the trash, or take it out of the queue")
    def delete(id: str) -> Response:
        try:
            desk.delete(id)
        except KeyError:
            raise HTTPException(404, "there is no such run") from None
        return Response(status_code=204)

    @app.post("/runs/{id}/stop", summary="Stop a run; its checkpoint is kept")
    def stop(id: str) -> dict[str, Any]:
        known(id)
        desk.stop(id)
        return desk.run(id) or {"id": id, "state": "removed"}

    @app.post(
        "/runs/{id}/pause", summary="Let a run wait, at its place in the queue, until it is resumed", **shape(RunNow)
    )
    def pause(id: str) -> dict[str, Any]:
        known(id)
        desk.pause(id)
        return known(id)

    @app.post(
        "/runs/{id}/resume",
        summary="Go on with a run; give it more steps, or other settings from here on",
        **shape(RunNow),
    )
    def resume(id: str, asked: Resume) -> dict[str, Any]:
        known(id)
        desk.resume(id, asked.steps, offers.full_settings(asked.settings))
        return known(id)

    @app.post("/runs/{id}/resume/check", summary="Which of these changes would change nothing, a line each")
    def check_resume(id: str, asked: Resume) -> dict[str, list[str]]:
        known(id)
        return {"notes": desk.notes_about(id, asked_for(asked.steps, offers.full_settings(asked.settings)))}

    @app.post("/runs/{id}/look", status_code=204, summary="Turn the run in progress to a side")
    def look(id: str, asked: Look) -> Response:
        known(id)
        desk.look(id, None if asked.azimuth is None else (asked.azimuth, asked.elevation))
        return Response(status_code=204)

    @app.post("/runs/{id}/export", summary="Make a file of the asset, and send it", response_class=FileResponse)
    def export_run(id: str, asked: Export) -> FileResponse:
        folder = folder_of(desk.root, id)
        if folder is None:
            raise HTTPException(404, "there is no such run")
        path = export(desk.root, folder, asked.format, asked.faces, asked.texture_size, asked.compress)
        after = BackgroundTask(shutil.rmtree, path.parent, ignore_errors=True)
        return FileResponse(path, filename=f"{id}{path.suffix}", background=after)

    @app.get(
        "/events", summary="All runs, whenever something changes (server-sent events)", response_class=StreamingResponse
    )
    async def all_events(request: Request) -> StreamingResponse:
        return streams.answer(request, desk.runs)

    @app.get(
        "/runs/{id}/events", summary="A run, whenever it changes (server-sent events)", response_class=StreamingResponse
    )
    async def run_events(id: str, request: Request) -> StreamingResponse:
        await asyncio.to_thread(known, id)
        return streams.answer(request, lambda: desk.run(id))

    def newest(id: str, which: Literal["picture", "prior_picture"]) -> Response:
        number, data = desk.picture(id, which)
        if not data:
            raise HTTPException(404, "there is no picture yet")
        return Response(data, media_type="image/jpeg", headers={"etag": f'"{number}"'})

    @app.get("/runs/{id}/live.jpg", summary="The newest picture of the run in progress", response_class=Response)
    def live(id: str) -> Response:
        return newest(id, "picture")

    @app.get("/runs/{id}/prior.jpg", summary="What the prior was shown last, and its answer", response_class=Response)
    def prior(id: str) -> Response:
        desk.watch()
        return newest(id, "prior_picture")

    @app.get("/runs/{id}/scene.jpg", summary="A run's scene as its checkpoint has it", response_class=Response)
    def scene(
        id: str,
        azimuth: Annotated[float, Query(ge=-3600, le=3600, allow_inf_nan=False)] = 0.0,
        elevation: Annotated[float, Query(ge=-85, le=85, allow_inf_nan=False)] = 15.0,
        size: Annotated[int, Query(ge=32, le=512)] = 256,
    ) -> Response:
        folder = folder_of(desk.root, id)
        if folder is None or not (folder / CHECKPOINT / META).is_file():
            raise HTTPException(404, "there is no checkpoint yet")
        if id in desk.active:
            raise Busy(f"{id} is in progress: look at live.jpg")
        return Response(drawing.draw(folder, azimuth, elevation, size), media_type="image/jpeg")

    @app.get("/runs/{id}/front.jpg", summary="A small picture of the asset", response_class=Response)
    def front(id: str) -> Response:
        path = file_of(desk.root, id, "preview.png")
        data = tile(path) if path else None
        if data is None:
            raise HTTPException(404, "there is no picture yet")
        return Response(data, media_type="image/jpeg")

    def send_file(name: str) -> Callable[[str], FileResponse]:
        def send(id: str) -> FileResponse:
            path = file_of(desk.root, id, name)
            if path is None:
                raise HTTPException(404, f"there is no {name} yet")
            return FileResponse(path, media_type=FILES[name])

        return send

    for name in FILES:
        app.get(f"/runs/{{id}}/{name}", summary=f"The run's {name}", response_class=FileResponse)(send_file(name))

    @app.get("/presets", summary="The presets that the studio has")
    def presets() -> dict[str, dict[str, Any]]:
        return offers.presets()

    @app.get("/settings", summary="The settings that a run may be given")
    def settings() -> list[dict[str, Any]]:
        return offers.settings()

    @app.get("/vocabulary", summary="The words that the bundled prior knows")
    def vocabulary() -> dict[str, list[str]]:
        return offers.vocabulary()

    @app.get("/check", summary="What the bundled prior will not make of a prompt")
    def check(prompt: Annotated[str, Query(max_length=4 * LONGEST)]) -> dict[str, Any]:
        try:
            return {"notes": critic.notes(prompt), "error": None}
        except UserError as error:
            return {"notes": [], "error": str(error)}

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return Guard(app, hosts, token)  # type: ignore[arg-type]
