"""Options that say who publishes a release, when and where: of its build, and of its card."""

import typer

DATE_PUBLISHED = typer.Option("", "--date-published", help="Of publication, as 2026-11-27.")
CREATOR = typer.Option("", "--creator", help="Who publishes the release, as a page names them.")
CREATOR_URL = typer.Option("", "--creator-url", help="Their page.")
URL = typer.Option("", "--url", help="The release's own page.")
CITE_AS = typer.Option("", "--cite-as", help="A citation, best in BibTeX.")
