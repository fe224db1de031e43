//! Where routes and their maintenance stand in the files. The model does not hold it: many sites
//! share their routes.

use super::model::Origin;

/// The places of the routes of all sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePlaces(Vec<SitePlaces>);

/// The places in one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SitePlaces {
    /// In the order of the model.
    pub(super) routes: Vec<RoutePlace>,
    /// Its own `maintenance`, if it has one.
    pub(super) maintenance: Option<Origin>,
}

/// The place of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoutePlace {
    pub(super) route: Origin,
    /// Its own `maintenance`, if it has one.
    pub(super) maintenance: Option<Origin>,
}

impl RoutePlaces {
    /// Adds the next site.
    pub(super) fn add_site(&mut self, places: SitePlaces) {
        self.0.push(places);
    }

    /// Where a route stands, by the index of its site and its own index in the model.
    pub fn get(&self, site: usize, route: usize) -> Option<&Origin> {
        Some(&self.0.get(site)?.routes.get(route)?.route)
    }

    /// Where the `maintenance` of a route stands, its own or that of its site, or of the site if no
    /// route is given.
    pub fn find_maintenance(&self, site: usize, route: Option<usize>) -> Option<&Origin> {
        let site = self.0.get(site)?;
        let own = route.and_then(|route| site.routes.get(route)?.maintenance.as_ref());
        own.or(site.maintenance.as_ref())
    }
}
