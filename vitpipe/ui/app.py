"""Pages of `vitpipe ui`, with one function for each."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import markupsafe
from flask import Flask, Response, abort, render_template, request, send_file, send_from_directory, url_for

from components.errors import DataRefused, NotFound, StoreError, UsageError
from pipeline.console.duration import duration
from pipeline.drawing.graph import STYLE, lineage_svg, run_svg
from pipeline.metadata.address import Address
from pipeline.metadata.neighbours import nearest_part
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Run
from pipeline.metadata.stores import server, stores
from pipeline.pushed_models import all_pushed, newest_pushed
from pipeline.result.run_result import EXIT, PROCESS, RunResult, RunState
from pipeline.result.summary import Summary, summarise
from vitpipe.ui import formatting, safety
from vitpipe.ui.changes import changes, since_earlier
from vitpipe.ui.checks import gates, stopping_states
from vitpipe.ui.curves import curves
from vitpipe.ui.explainer_client import MOST_ANSWERS, BusyError, ExplainerClient, RefusedError
from vitpipe.ui.headline import headline
from vitpipe.ui.history import MOST_RUNS, figures, moments
from vitpipe.ui.key_figures import key_figures
from vitpipe.ui.listing import SIZE, page_of, runs_page
from vitpipe.ui.traffic import MOST_WINDOWS, traffic
from vitpipe.ui.training import training

_SERVER = "@server"  # name of a store on a server, in addresses; no pipeline can have it
_MOST_BOXES = 120  # most boxes of a lineage; those nearest to its artifact are shown
_ARTIFACT_STATES = ("live", "pending", "marked for deletion", "deleted", "abandoned")


def create_app(runs: Path, host: str = "127.0.0.1", token: str | None = None) -> Flask:
    """Return the application that serves the pages.

    Args:
        runs: Folder of the run folders.
        host: Host that the server listens at.
        token: Token that browsers must send; None if only this machine can connect.
    """
    app = Flask(__name__, static_url_path="/-")
    safety.guard(app, host, token, posts="send_image")
    explainer = ExplainerClient()
    app.jinja_env.filters.update(
        when=formatting.when, duration=duration, pretty=formatting.pretty, css_class=formatting.css_class
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True

    def all_addresses() -> dict[str, Address]:
        address = server()
        return {_SERVER: address} if address else stores(runs)

    def address_of(store: str) -> Address:
        return all_addresses().get(store) or abort(404, f"There is no store {store} below {runs}.")

    def run_of(store: str, name: str) -> Run:
        with reader(address_of(store)) as found:
            return found.run(name) or abort(404, f"There is no run {name} in {store}.")

    def report_folder(store: str, run: Run) -> Path | None:
        parts = run.pipeline or store, "reports", run.name
        folder = runs.resolve().joinpath(*parts)  # the names come from a store, so they may be anything
        inside = (
            folder.is_relative_to(runs.resolve())
            and folder.resolve() == folder
            and folder.relative_to(runs.resolve()).parts == parts
        )
        return folder if inside and (folder / "report.html").is_file() else None

    @app.get("/")
    def all_runs() -> str:
        all_stores = all_addresses()
        pipeline, state, blessed = (request.args.get(name, "") for name in ("pipeline", "state", "blessed"))
        # A server keeps the runs of many pipelines in one store.
        store = _SERVER if _SERVER in all_stores else pipeline
        if store:
            address_of(store)
        name = "" if store == pipeline else pipeline

        def wanted(summary: Summary) -> bool:
            return (
                name in ("", summary.pipeline)
                and state in ("", summary.state)
                and (not blessed or summary.blessed is (blessed == "yes"))
            )

        chosen = {one: address for one, address in all_stores.items() if store in ("", one)}
        page = runs_page(chosen, _page(), state, wanted if name or blessed else None)
        return render_template(
            "runs.html",
            page=page,
            stores={one: one for one in all_stores},
            runs=runs,
            states={one: one for one in RunState},
            store=store or None,
            live=any(row.summary.state is RunState.RUNNING for row in page.rows),
            **_pages("all_runs", {}, ("pipeline", "state", "blessed")),
        )

    @app.get("/<store>/")
    def one_store(store: str) -> Any:
        address_of(store)
        return app.redirect(url_for("all_runs", pipeline=store))

    @app.get("/<store>/runs/<run>")
    def one_run(store: str, run: str) -> str:
        found = run_of(store, run)
        with reader(address_of(store)) as records:
            earlier = since_earlier(found, records)
        result = RunResult(found)
        live = result.state is RunState.RUNNING
        trained = training(result)
        recorded = changes(result)
        by_node = {one.node: result.state_of_node(one) for one in found.executions}  # the newest of a node wins
        absent = ("not started" if live else "not run") if recorded else None
        picture = run_svg(found, by_node | stopping_states(result), lambda _, id: f"#execution-{id}", absent)
        return render_template(
            "run.html",
            run=found,
            runs=runs,
            logs=runs / (found.pipeline or store) / "logs" / found.name,
            summary=summarise(result),
            headline=headline(result, trained, runs),
            figures=key_figures(result, trained),
            seconds=max(0, time.time() - found.started_ms / 1000) if live else result.seconds,
            store=store,
            training=trained,
            backbone=result.backbone,
            curves={name: markupsafe.Markup(svg) for name, svg in curves(trained).items()} if trained else {},
            gates=gates(result),
            earlier=earlier,
            picture=markupsafe.Markup(picture),
            states={one.id: result.state_of_node(one) for one in found.executions},
            model=result.model,
            changes=recorded,
            facts={
                name: value
                for name, value in sorted(found.facts.items())
                if name not in ("settings", EXIT, PROCESS) and value not in ("", "{}")
            },
            report=report_folder(store, found),
            live=live,
        )

    @app.get("/<store>/runs/<run>/report/<path:file>")
    def report(store: str, run: str, file: str) -> Response:
        folder = report_folder(store, run_of(store, run)) or abort(404, f"Run {run} has no report.")
        if not (folder / file).resolve().is_relative_to(folder):  # a symbolic link may lead out of the folder
            abort(404)
        response = send_from_directory(folder, file)
        response.headers["Content-Security-Policy"] = safety.REPORT
        return response

    @app.get("/<store>/artifacts")
    def all_artifacts(store: str) -> str:
        type_name, state, number = request.args.get("type", ""), request.args.get("state", ""), _page()
        skipped = (number - 1) * SIZE
        with reader(address_of(store)) as found:
            types = found.artifact_types()
            rows = found.artifacts(type_name or None, state or None, limit=SIZE + 1, offset=skipped)
        return render_template(
            "artifacts.html",
            page=page_of(rows, number, skipped),
            store=store,
            types={name: f"{name} ({count})" for name, count in types.items()},
            states={one: one for one in _ARTIFACT_STATES},
            **_pages("all_artifacts", {"store": store}, ("type", "state")),
        )

    @app.get("/<store>/artifacts/<int(max=9223372036854775807):artifact>")
    def one_artifact(store: str, artifact: int) -> str:
        with reader(address_of(store)) as found:
            try:
                around = found.around(artifact)
            except ValueError:
                abort(404, f"There is no artifact {artifact} in {store}.")
            windows = traffic(found, around.artifacts[artifact], runs)
        return render_template(
            "artifact.html",
            artifact=around.artifacts[artifact],
            around=around,
            store=store,
            traffic=windows,
            most_windows=MOST_WINDOWS,
        )

    @app.get("/<store>/artifacts/<int(max=9223372036854775807):artifact>/<any(up, down):direction>")
    def lineage(store: str, artifact: int, direction: Any) -> str:
        with reader(address_of(store)) as found:
            try:
                whole = found.lineage(artifact, direction)
            except ValueError:
                abort(404, f"There is no artifact {artifact} in {store}.")
        part = nearest_part(whole, _MOST_BOXES)

        def href(kind: str, id: int) -> str | None:
            if kind == "artifact":
                return url_for("lineage", store=store, artifact=id, direction=direction)
            run = whole.runs.get(id)
            return run and url_for("one_run", store=store, run=run, _anchor=f"execution-{id}")

        return render_template(
            "lineage.html",
            artifact=whole.artifacts[artifact],
            direction=direction,
            store=store,
            picture=markupsafe.Markup(lineage_svg(part, href)),
            drawn=len(part.artifacts) + len(part.executions),
            boxes=len(whole.artifacts) + len(whole.executions),
        )

    @app.get("/<store>/charts")
    def charts(store: str) -> Response:
        found = moments(address_of(store))
        drawn = figures(found, lambda run: url_for("one_run", store=store, run=run))
        response = app.make_response(
            render_template("charts.html", moments=found, figures=drawn, store=store, most=MOST_RUNS)
        )
        response.headers["Content-Security-Policy"] = safety.CHARTS
        return response

    @app.get("/-/explain")
    def explain() -> str:
        return render_template(
            "explain.html", models=list(all_pushed(runs)), runs=runs, most=safety.MAX_BODY, answers=MOST_ANSWERS
        )

    def pushed_model(name: str) -> Path:
        models = all_pushed(runs)
        if not models:
            raise RefusedError(
                f"There is no pushed model below {runs}. Train and push one with `vitpipe run -c sample`."
            )
        if name and name not in models:
            raise RefusedError(f"There is no pushed model {name} below {runs}. Reload this page and choose another.")
        return models[name] if name else newest_pushed(runs)

    @app.post("/-/explain")
    def send_image() -> Any:
        try:
            model = pushed_model(request.args.get("model", ""))
            page = explainer.ask(model, request.get_data(cache=False))
        except (RefusedError, UsageError, DataRefused) as error:
            return render_template("problem.html", title="The image was not explained", text=str(error)), 422
        except BusyError as error:
            return render_template("problem.html", title="Busy", text=str(error)), 503
        return "", 201, {"Location": url_for("answer", name=page)}

    @app.get("/-/explain/<name>")
    def answer(name: str) -> Response:
        page = explainer.page(name) or abort(404, "This answer is no longer kept. Choose the image again.")
        return Response(page, mimetype="text/html", headers={"Content-Security-Policy": safety.REPORT})

    @app.get("/-/picture.css")
    def picture_style() -> Response:
        return Response(STYLE, mimetype="text/css", headers={"Cache-Control": "max-age=3600"})

    @app.get("/-/plotly.js")
    def plotly() -> Response:
        spec = importlib.util.find_spec("plotly")  # without an import, which takes half a second
        assert spec and spec.submodule_search_locations
        return send_file(Path(spec.submodule_search_locations[0], "package_data", "plotly.min.js"), max_age=86400)

    @app.errorhandler(NotFound)
    @app.errorhandler(StoreError)
    def unreadable(error: Exception) -> tuple[str, int]:
        return render_template("problem.html", title="The store cannot be read", text=str(error)), 503

    for code, text in (
        (400, "This server answers only requests that name this machine, such as http://localhost."),
        (403, "Open the address that `vitpipe ui` printed when it started. It contains a token."),
        (404, "There is no such page. Follow the links on the pages."),
        (405, "These pages are read-only."),
        (413, f"The image is larger than {safety.MAX_BODY >> 20} MiB. Choose a smaller one, or run `vitpipe explain`."),
        (415, f"An image must be sent with the content type {safety.IMAGE}."),
    ):
        app.register_error_handler(code, _problem(text))
    return app


def _problem(text: str) -> Any:
    def page(error: Any) -> tuple[str, int]:
        message = text if error.description == type(error).description else error.description
        return render_template("problem.html", title=error.name, text=message), error.code

    return page


def _page() -> int:
    return min(max(request.args.get("page", 1, type=int), 1), 1_000_000)


def _pages(endpoint: str, names: dict[str, str], filters_of_page: tuple[str, ...]) -> dict[str, Any]:
    """Return the filters that are set, and a function that returns the address of another page of the same list.

    Args:
        endpoint: Endpoint of the list.
        names: Arguments of its route.
        filters_of_page: Names of its filters. No others are read, because `url_for` interprets names such as
            `_external`.
    """
    filters = {name: request.args[name] for name in filters_of_page if request.args.get(name)}
    return {
        "filters": filters,
        "to_page": lambda number: url_for(endpoint, **{**filters, **names, "page": number}),
    }
