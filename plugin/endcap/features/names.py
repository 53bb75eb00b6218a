"""The columns of the features, in order, and what each says."""

#: What the shopper did with the product itself.
OWN = (
    "own_buys",  # log(1 + purchases of this product by this shopper)
    "own_decayed",  # log(1 + decayed weight of all his actions on it)
    "own_recency",  # 1 / (1 + days since the last action / 30); 0 where there was none
    "own_any",  # 1 where the shopper knows the product
    "own_share",  # its part of the shopper's weight in this leaf category, shrunk towards 0
    "own_share_lately",  # its part of the decayed weight in the leaf category
    "own_age",  # log(1 + days since the last action); log(1 + 400) where there was none
    "own_trips",  # log(1 + later days on which something else of the leaf category was bought)
)
#: How the shopper shops in the candidate's leaf category.
SHELF = (
    "category_weight",  # log(1 + shopper's decayed weight on the leaf category)
    "shelf_buys",  # log(1 + purchases)
    "shelf_distinct",  # log(1 + products bought)
    "shelf_variety",  # products bought / purchases
    "shelf_top_share",  # purchases of the product bought most / purchases
    "shelf_age",  # log(1 + days since the last action)
    "shopper_buys",  # log(1 + all purchases that are remembered)
    "candidates",  # log(1 + candidates of this search)
)
#: What the shopper likes apart from the product itself. A *lift* is the log of (the share of his weight in the leaf
#: category, or in the category above, on what is the same / that share of the candidates' sales), both shrunk.
TASTE = (
    "brand_share",  # shopper's weight on the brand within the leaf category, other products only, shrunk
    "brand_weight",  # log(1 + shopper's decayed weight on the brand in all categories)
    "brand_lift",
    "brand_lift_above",
    "brand_seen",  # log(1 + weight on the brand in the category above)
    "attribute_share",  # mean over attributes of the weight on the same value within the leaf category
    "attribute_1_lift",  # the table's attributes, by name
    "attribute_2_lift",
    "attribute_3_lift",
    "attribute_4_lift",
    "attributes_lift_above",  # mean over attributes
    "twin_lift",  # same brand and same attributes, in the category above
    "price_gap",  # -|relative price - shopper's mean relative price|, in log units
    "price_gap_shelf",  # the same, with his mean in the leaf category
    "price_above_shelf",  # relative price - his mean in the leaf category
    "price_relative",  # log(price / median of the leaf category)
    "price_shopper",  # shopper's mean relative price
    "similarity",  # cosine to the shopper's weighted mean vector
)
#: What everybody does.
CROWD = (
    "total",  # log(1 + all-time weight)
    "recent",  # log(1 + recent weight)
    "week",  # log(1 + this week's weight)
    "recent_share",  # recent weight / largest among the candidates
    "trend",  # log((1 + recent weight) / (1 + expected from the all-time weight))
    "total_part",  # log of the share of all candidates' all-time weight
    "recent_part",  # the same of the recent weight
    "week_part",  # the same of this week's
    "week_trend",  # log((1 + this week's weight) / (1 + expected from the recent weight))
    "stranger_recent",  # recent, where the shopper knows none of the candidates
)
#: What the engine says.
ENGINE = (
    "engine_score",  # log(engine score / largest among the candidates), at least log(.02)
    "engine_rank",  # 1 / log2(2 + engine position)
)
#: What an :class:`~endcap.features.affinity.Affinity` knows; 0 without one.
AFFINITY = (
    "like_latent",  # match of the factors of shopper and product, 6 · signed root
    "like_latent_cosine",  # the same, whatever the length of the product's factors
    "like_bought",  # 3 · log(1 + likeness, by who buys them, to products of the shelf that the shopper ever bought)
    "like_bought_lately",  # the same, lately
    "like_basket",  # the same, by what lies in baskets together
    "like_ridge",  # signed log(1 + 20 · |what a ridge regression makes of all bought in the category above|)
    "like_ridge_lately",  # the same of what was bought lately
    "crowd_shoppers",  # log(1 + shoppers who ever bought it)
    "crowd_loyalty",  # log((purchases + 1) / (shoppers + 1))
    "crowd_again",  # log of the share of its shoppers who came back to it within a month, shrunk
    "crowd_again_shelf",  # the same of the leaf category
    "crowd_new",  # log of its share, in the leaf category, of first purchases of the last 60 days
    "crowd_new_month",  # the same of the last 30 days
)

#: The columns of :attr:`~endcap.features.RankingInputs.features`, in order. A model's bundle names them; another list,
#: another model.
FEATURES = (*OWN, *SHELF, *TASTE, *CROWD, *ENGINE, *AFFINITY)
INDEX = {name: column for column, name in enumerate(FEATURES)}
