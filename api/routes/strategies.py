"""Strategies: the ways to learn new classes without losing the old ones."""

from fastapi import APIRouter

from api.http.guarded_route import Guarded
from api.http.rights import needs
from api.schemas.base import PageOut
from api.schemas.strategies import StrategyOut
from losses import strategies
from storage.domain import Scope
from trainer import recipes

router = APIRouter(prefix="/v1/strategies", tags=["strategies"], route_class=Guarded)


@router.get("", dependencies=[needs(Scope.PREDICT, needs_model_in_path=False)])
def list_strategies() -> PageOut[StrategyOut]:
    """List every strategy with its explanation, its source and the schema of its recipe."""
    items = [
        StrategyOut(
            name=strategy.name,
            title=strategy.title,
            explanation=strategy.explanation,
            source=strategy.source,
            formula=strategy.formula,
            head=strategy.head,
            needs_exemplars=bool(strategy.without_exemplars),
            recipe_schema=recipes.schema(strategy.name),
        )
        for strategy in strategies.STRATEGIES
    ]
    return PageOut(items=items, next_cursor=None)
