//! Where routes stand in the files. The model does not hold it: many sites share their routes.

use super::model::Origin;

/// The places of the routes of all sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePlaces(Vec<Vec<Origin>>);

impl RoutePlaces {
    /// Adds the next site, with the places of its routes in the order of the model.
    pub(super) fn add_site(&mut self, routes: Vec<Origin>) {
        self.0.push(routes);
    }

    /// Where a route stands, by the index of its site and its own index in the model.
    pub fn get(&self, site: usize, route: usize) -> Option<&Origin> {
        self.0.get(site)?.get(route)
    }
}
