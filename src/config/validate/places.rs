//! Where sites and their routes stand in the files.

use super::context::Context;
use crate::config::model::Route;
use crate::config::problem::At;
use crate::config::route_places::{RoutePlace, SitePlaces};

/// Notes where the routes of a site stand, if that is wanted.
pub(super) fn note_places(ctx: &mut Context<'_>, routes: &[(usize, Route)], at: &At<'_>) {
    if ctx.route_places.is_none() {
        return;
    }
    let routes_at = at.key("routes");
    let maintenance = |at: &At<'_>| {
        let at = at.key("maintenance");
        at.is_written().then(|| ctx.origin(&at.at_key()))
    };
    let place = |(index, _): &(usize, Route)| match routes_at.is_written() {
        true => RoutePlace {
            route: ctx.origin(&routes_at.index(*index)),
            maintenance: maintenance(&routes_at.index(*index)),
        },
        false => RoutePlace {
            route: ctx.origin(&at.key("upstream").at_key()),
            maintenance: None,
        },
    };
    let places = SitePlaces {
        routes: routes.iter().map(place).collect(),
        maintenance: maintenance(at),
    };
    if let Some(all) = &mut ctx.route_places {
        all.add_site(places);
    }
}
