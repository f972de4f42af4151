//! Tables of `pg_catalog` about things that do not exist here: they have columns and never a row.

use tandem_types::Result;

use super::Named;
use crate::catalog::rows::table;

const EMPTY: &[(&str, &str)] = &[
    ("pg_attrdef", "oid:i adrelid:i adnum:i adbin:t"),
    ("pg_auth_members", "roleid:i member:i grantor:i admin_option:b"),
    ("pg_cast", "oid:i castsource:i casttarget:i castfunc:i castcontext:t castmethod:t"),
    ("pg_collation", "oid:i collname:t collnamespace:i collowner:i collprovider:t collisdeterministic:b"),
    ("pg_conversion", "oid:i conname:t connamespace:i"),
    ("pg_default_acl", "oid:i defaclrole:i defaclnamespace:i defaclobjtype:t defaclacl:t"),
    ("pg_depend", "classid:i objid:i objsubid:i refclassid:i refobjid:i refobjsubid:i deptype:t"),
    ("pg_description", "objoid:i classoid:i objsubid:i description:t"),
    ("pg_enum", "oid:i enumtypid:i enumsortorder:i enumlabel:t"),
    ("pg_event_trigger", "oid:i evtname:t evtevent:t evtowner:i evtfoid:i evtenabled:t evttags:t"),
    (
        "pg_extension",
        "oid:i extname:t extowner:i extnamespace:i extrelocatable:b extversion:t extconfig:t extcondition:t",
    ),
    (
        "pg_foreign_data_wrapper",
        "oid:i fdwname:t fdwowner:i fdwhandler:i fdwvalidator:i fdwacl:t fdwoptions:t",
    ),
    ("pg_foreign_server", "oid:i srvname:t srvowner:i srvfdw:i srvtype:t srvversion:t srvacl:t srvoptions:t"),
    ("pg_foreign_table", "ftrelid:i ftserver:i ftoptions:t"),
    ("pg_inherits", "inhrelid:i inhparent:i inhseqno:i inhdetachpending:b"),
    ("pg_language", "oid:i lanname:t lanowner:i lanispl:b lanpltrusted:b lanacl:t"),
    ("pg_locks", "locktype:t database:i relation:i pid:i mode:t granted:b"),
    (
        "pg_matviews",
        "schemaname:t matviewname:t matviewowner:t tablespace:t hasindexes:b ispopulated:b definition:t",
    ),
    ("pg_opclass", "oid:i opcmethod:i opcname:t opcnamespace:i opcdefault:b opcintype:i opckeytype:i"),
    ("pg_operator", "oid:i oprname:t oprnamespace:i oprleft:i oprright:i oprresult:i oprcode:i"),
    ("pg_partitioned_table", "partrelid:i partstrat:t partnatts:i partdefid:i"),
    ("pg_policies", "schemaname:t tablename:t policyname:t cmd:t qual:t with_check:t"),
    ("pg_policy", "oid:i polname:t polrelid:i polcmd:t polpermissive:b polroles:t polqual:t polwithcheck:t"),
    (
        "pg_proc",
        "oid:i proname:t pronamespace:i proowner:i prolang:i prokind:t proretset:b prorettype:i proargtypes:t pronargs:i prosrc:t proacl:t",
    ),
    (
        "pg_publication",
        "oid:i pubname:t pubowner:i puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b pubviaroot:b",
    ),
    ("pg_publication_namespace", "oid:i pnpubid:i pnnspid:i"),
    ("pg_publication_rel", "oid:i prpubid:i prrelid:i prqual:t prattrs:l"),
    ("pg_range", "rngtypid:i rngsubtype:i rngmultitypid:i rngcollation:i rngsubopc:i"),
    ("pg_rewrite", "oid:i rulename:t ev_class:i ev_type:t ev_enabled:t is_instead:b"),
    ("pg_rules", "schemaname:t tablename:t rulename:t definition:t"),
    (
        "pg_sequence",
        "seqrelid:i seqtypid:i seqstart:i seqincrement:i seqmax:i seqmin:i seqcache:i seqcycle:b",
    ),
    ("pg_sequences", "schemaname:t sequencename:t sequenceowner:t start_value:i last_value:i"),
    ("pg_shdescription", "objoid:i classoid:i description:t"),
    ("pg_stat_activity", "datid:i datname:t pid:i usename:t application_name:t state:t query:t"),
    (
        "pg_statistic_ext",
        "oid:i stxrelid:i stxname:t stxnamespace:i stxowner:i stxkeys:l stxkind:t stxstattarget:i",
    ),
    ("pg_subscription", "oid:i subdbid:i subname:t subowner:i subenabled:b"),
    (
        "pg_trigger",
        "oid:i tgrelid:i tgname:t tgfoid:i tgtype:i tgenabled:t tgisinternal:b tgconstraint:i tgparentid:i tgdeferrable:b",
    ),
    ("pg_user_mapping", "oid:i umuser:i umserver:i umoptions:t"),
    ("pg_views", "schemaname:t viewname:t viewowner:t definition:t"),
];

/// Whether a table of `pg_catalog` never has a row.
pub fn is_empty(name: &str) -> bool {
    EMPTY.iter().any(|(known, _)| *known == name)
}

pub(super) fn tables() -> Result<Named> {
    EMPTY.iter().map(|(name, columns)| Ok((*name, table(columns, &[])?))).collect()
}
